"""What a pair takes where torch's own operators run it: a CPU, MPS, a GPU without Triton.

On a CPU matrices are copied out of mapped files into the form its products want. What stays mapped
(the tables of embeddings) is not counted: the system drops such pages and reads them again.

    native    x86 with the C library: float32 numbers, 16-bit matrices as they are stored, quantized
              formats that have kernels packed, others as float16
    half      other x86: float32 numbers, matrices as float16; 8 bits where packing on load asks
    bf16      x86 that multiplies bf16, and accelerators: 16 bits throughout
    float32   others: four bytes; or two, as stored, where four took more than half of what is free
"""

from gemmad.memory.kv import ALIGNED, CHUNK_PLAIN, kv_bytes, layer_kv_bytes, plain_rings
from gemmad.memory.packed import KERNELS
from gemmad.memory.parts import (
    ITEM_BYTES,
    LayerBytes,
    Parts,
    Setting,
    is_small,
    kept_as,
    with_head,
)
from gemmad.memory.shapes import HalfShape, Matrix, PairShape
from gemmad.wire import Quantize

_TINY_ELEMENTS = 2**13  # matrices up to here are kept in float32
_ROW_ELEMENTS = 2**18  # a drafter's up to here
_EDGES = 32  # columns that 8-bit products add, before they are cut into blocks
_BLOCK = 512  # columns: FBGEMM fills the last one up
_PANEL = 16
# Columns of a block, and its bytes in each row of a panel.
_NATIVE_BLOCK = {
    "Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_K": (256, 148), "Q5_K": (256, 180), "Q6_K": (256, 210),
}  # fmt: skip
_FIRST_POSITIONS = 1024
_HEAD_BYTES = 6  # of each weight of the head while it is made
_PACKED_HEAD_BYTES = {"native": 8, "half": 11}  # the same while it is packed, as measured


def parts(pair: PairShape, setting: Setting) -> Parts:
    """The bytes of `pair` loaded so."""
    target, drafter = pair.target, pair.drafter if setting.drafter else None
    item = item_bytes(target, setting)
    rings = _rings(target, setting, setting.max_depth if drafter else 0)
    weights = [_kept(target, m, setting, item) for m in with_head(target)]
    drafts = drafter_bytes(drafter, setting, item) if drafter else 0
    tables = sum(m.elements * ITEM_BYTES.get(m.kind, 2) for m in target.of("table", "ple_table"))
    own_tables = 0 if setting.kind == "cpu" else tables
    kv = kv_bytes(target, rings, setting.slots, item)
    ropes = rope_bytes(drafter, setting.num_ctx, item, each=True) if drafter else 0
    stays = sum(weights) + own_tables + drafts + kv + ropes
    in_use = rope_bytes(target, setting.num_ctx, item, each=False) + step_bytes(
        target, setting, item
    )
    return Parts(
        target=sum(weights) + own_tables,
        drafter=drafts,
        kv=kv,
        drafter_state=ropes,
        workspace=max(in_use, loading_bytes(target, setting) - stays),
        mapped=0 if own_tables else tables,
    )


def layers_bytes(pair: PairShape, setting: Setting) -> tuple[LayerBytes, ...]:
    """The same of each layer of a target alone."""
    target, depth = pair.target, setting.max_depth if setting.drafter and pair.drafter else 0
    item, rings = item_bytes(target, setting), _rings(target, setting, depth)
    return tuple(
        LayerBytes(
            sum(_kept(target, matrix, setting, item) for matrix in own),
            layer_kv_bytes(layer, rings, setting.slots, item),
        )
        for own, layer in zip(target.by_layer, target.layers, strict=True)
    )


def segment_bytes(pair: PairShape, setting: Setting) -> int:
    """What some of the layers work with, without embeddings and head."""
    item = item_bytes(pair.target, setting)
    return step_bytes(pair.target, setting, item) - logits_bytes(pair.target)


def _rings(target: HalfShape, setting: Setting, depth: int) -> tuple[int, int]:
    width = depth + 1 if setting.deterministic else 0
    return plain_rings(target, setting.num_ctx, depth, width)


def item_bytes(target: HalfShape, setting: Setting) -> int:
    """Of a number that is computed with; the rule by which a runner chooses its dtype."""
    stored = 4 if target.floating == "F32" else 2
    if is_small(target) or stored == 4 or (setting.kind == "cpu" and setting.cpu == "native"):
        return 4
    if setting.kind != "cpu" or setting.cpu == "bf16":
        return 2
    widened = 1 if setting.cpu == "half" else 2
    takes = target.elements * stored * widened
    return 4 if setting.free is None or takes <= setting.free // 2 else 2


def loading_bytes(target: HalfShape, setting: Setting) -> int:
    """The most that loading holds: on a CPU the head comes first, whole.

    In float32, but where native kernels take it as it is stored.
    """
    packs = setting.quantize is not None
    if setting.kind != "cpu" or not (setting.cpu == "half" or (setting.cpu == "native" and packs)):
        return 0
    each = _PACKED_HEAD_BYTES[setting.cpu] if packs else _HEAD_BYTES
    return max(m.elements * each for m in with_head(target) if m.role == "head")


def _kept(target: HalfShape, matrix: Matrix, setting: Setting, item: int) -> int:
    if matrix.role in ("table", "ple_table"):
        return 0  # mapped, or counted apart
    if matrix.role == "small":
        return matrix.elements * item
    if matrix.role.startswith("experts") and not _packs_experts(matrix, setting, item):
        return 0 if _maps(matrix, setting, item) else matrix.elements * item
    if matrix.role == "head" and not target.of("head") and setting.kind != "cpu":
        tied = matrix.kind in ITEM_BYTES and kept_as(matrix, setting.quantize) == matrix.kind
        return 0 if tied and ITEM_BYTES[matrix.kind] == item else matrix.elements * item
    return matrix_bytes(matrix, setting, setting.quantize, item, _TINY_ELEMENTS)


def _packs_experts(matrix: Matrix, setting: Setting, item: int) -> bool:
    """Whether they are kept as other matrices are; as stored they stay in the file."""
    packed = setting.cpu == "half" and matrix.kind in KERNELS
    return setting.kind == "cpu" and item == 4 and (setting.cpu == "native" or packed)


def _maps(matrix: Matrix, setting: Setting, item: int) -> bool:
    return setting.kind == "cpu" and item == 2 and matrix.kind == "BF16"


def matrix_bytes(
    matrix: Matrix, setting: Setting, quantize: Quantize | None, item: int, tiny: int
) -> int:
    """Of a matrix in the form that this device's products want."""
    if setting.kind != "cpu":
        return matrix.elements * item
    if setting.cpu == "native" and item == 4:
        return native_bytes(matrix, kept_as(matrix, quantize))
    in_bytes = kept_as(matrix, quantize) != matrix.kind and (
        quantize == "int8" or matrix.role == "head"
    )
    if setting.cpu == "half" and in_bytes:
        return matrix.copies * matrix.rows * _blocks(matrix.columns + _EDGES) * _BLOCK
    if setting.cpu == "half" and item == 4:
        return matrix.elements * (4 if matrix.rows * matrix.columns <= tiny else 2)
    if setting.cpu == "half" and matrix.kind in KERNELS:
        return matrix.elements * 2
    if setting.cpu == "float32" and _maps(matrix, setting, item):
        return 0 if matrix.role not in ("qkv", "gate_up") else matrix.elements * item
    return matrix.elements * item


def native_bytes(matrix: Matrix, kind: str) -> int:
    """Of a matrix in panels of 16 rows."""
    rows = -(-matrix.rows // _PANEL) * _PANEL
    columns, each = _NATIVE_BLOCK.get(kind, (1, 4 if kind == "F32" else 2))
    return matrix.copies * rows * matrix.columns // columns * each


def _blocks(columns: int) -> int:
    return -(-columns // _BLOCK)


def drafter_bytes(drafter: HalfShape, setting: Setting, item: int) -> int:
    """Of a drafter's weights: its head in the order of clusters is never packed."""
    total = 0
    clustered = bool(drafter.of("centroids"))
    for matrix in drafter.matrices:
        if matrix.role == "ordering":
            total += 8 * matrix.elements
        elif matrix.role == "small" or (matrix.role == "table" and clustered):
            total += matrix.elements * item
        else:
            named = matrix._replace(role="head") if matrix.role == "table" else matrix
            total += matrix_bytes(named, setting, setting.draft_quantize, item, _ROW_ELEMENTS)
    return total


def rope_bytes(half: HalfShape, num_ctx: int, item: int, *, each: bool) -> int:
    """Of cosines and sines by position, for each layer or for each kind of layer."""
    positions = max(_FIRST_POSITIONS, 1 << (num_ctx - 1).bit_length())
    found = [(layer.kind, layer.head_dim) for layer in half.layers]
    return sum(2 * positions * dim * item for _, dim in (found if each else set(found)))


def step_bytes(target: HalfShape, setting: Setting, item: int) -> int:
    """The most that one chunk of a prompt holds at once, at the end of a full context.

    Which keys a row sees is worked out in 8-byte positions and kept as a mask; rounds have a table
    of masks, twice as long as what was read of it.
    """
    rows = min(CHUNK_PLAIN, setting.num_ctx)
    inner = max(layer.inner for layer in target.layers)
    widest = max(layer.q_width + 2 * layer.kv_width for layer in target.layers)
    ple = len(target.layers) * target.ple_dim * 3
    chunk = rows * (4 * target.hidden + max(4 * inner, 3 * widest) + ple) * item
    masks = rows * setting.num_ctx * (8 + 1 + item) + ALIGNED * 2 * setting.num_ctx * item
    return chunk + masks + logits_bytes(target)


def logits_bytes(target: HalfShape) -> int:
    """Of one row's, and what choosing makes of them."""
    return target.vocab * 4 * 4
