"""What a pair takes where rounds are graphs of fused kernels: NVIDIA's GPUs; arithmetic.

The device holds at the end of a load and in use:

    weights, K/V, a hidden row a slot
    the allocator's common pool: the largest chunk of a prompt, or what loading held at once
    the pools of captured rounds: the largest round, in the graphs' pool and where it was warmed

`item` is 2 everywhere: these kernels run in 16 bits.
"""

from gemmad.memory.kv import (
    CHUNK_FUSED,
    CHUNKS_CAPTURED,
    fused_rings,
    kv_bytes,
    layer_kv_bytes,
)
from gemmad.memory.packed import KERNELS, planes_bytes, tiled_bytes
from gemmad.memory.parts import ITEM_BYTES, LayerBytes, Parts, Setting, kept_as, with_head
from gemmad.memory.runtime import RUNTIMES
from gemmad.memory.shapes import HalfShape, LayerShape, Matrix, PairShape
from gemmad.wire import Quantize

ITEM = 2
MAX_TILE = 128  # rows of a round, all sequences together
AHEAD_BYTES = 2 << 30  # that a load reads ahead of whoever packs them
STAGING_BYTES = 5 * (32 << 20)  # pinned, while weights are read
_PLANES = ("enter", "leave")  # of drafters: packed, but not laid out in tiles
_SPLIT_COLUMNS = 25_000  # of all partial sums of one product
_CHOOSING = 9 << 13  # bytes a row: maxima, groups, candidates
_SEARCHING = 8 * 4  # bytes a weight, of the piece whose scales are searched: float32 copies
_PIECE = 2**24  # weights that are packed at once
# What libraries and segments take for prompts' chunks that are graphs (one H200: nano, E2B); their
# rows are held twice, by trial and graph.
_PROMPTS = 84 << 20


def parts(pair: PairShape, setting: Setting) -> Parts:
    """The bytes of `pair` loaded so."""
    target, drafter = pair.target, pair.drafter if setting.drafter else None
    depth = setting.max_depth if drafter else 0
    rings = fused_rings(target, setting.num_ctx, depth)
    kv = kv_bytes(target, rings, setting.slots, ITEM)
    table = sum(m.elements * ITEM_BYTES.get(m.kind, ITEM) for m in target.of("ple_table"))
    on_host = table if setting.ple_on_host and _is_plain(target) else 0
    weights = target_bytes(target, setting.quantize) - on_host
    drafts = drafter_bytes(drafter, setting.draft_quantize) if drafter else 0
    state = setting.slots * target.hidden * ITEM
    rows = round_rows(setting.slots, depth)
    working = round_bytes(target, drafter, rows, rings[0], depth)
    pool = max(
        kv + prompt_bytes(target, setting, CHUNK_FUSED),
        kv + working,
        loading_bytes(target, setting) - drafts,  # the drafter is loaded into what that leaves
    )
    return Parts(
        target=weights,
        drafter=drafts,
        kv=kv,
        drafter_state=state,
        workspace=pool - kv,
        graphs=2 * working + graph_bytes(pair, setting, depth),
        host=on_host + STAGING_BYTES,
    )


def layers_bytes(pair: PairShape, setting: Setting) -> tuple[LayerBytes, ...]:
    """Weights, keys and values of each layer of a target alone."""
    target, depth = pair.target, setting.max_depth if setting.drafter and pair.drafter else 0
    rings = fused_rings(target, setting.num_ctx, depth)
    return tuple(
        LayerBytes(
            sum(_bytes(matrix, kept_as(matrix, setting.quantize)) for matrix in own),
            layer_kv_bytes(layer, rings, setting.slots, ITEM),
        )
        for own, layer in zip(target.by_layer, target.layers, strict=True)
    )


def segment_bytes(pair: PairShape, setting: Setting) -> int:
    """What some of the layers work with, and what their graphs keep, without embeddings and head.

    As much as all layers would: how many they are is not known yet.
    """
    target, depth = pair.target, setting.max_depth if setting.drafter and pair.drafter else 0
    rings = fused_rings(target, setting.num_ctx, depth)
    working = round_bytes(target, None, round_rows(setting.slots, depth), rings[0], depth)
    loading = loading_bytes(target, setting) if setting.quantize else 0
    pool = max(prompt_bytes(target, setting, CHUNK_FUSED), working, loading)
    return pool + 2 * working + graph_bytes(PairShape(target), setting, depth)


def target_bytes(target: HalfShape, quantize: Quantize | None) -> int:
    """Of a target's weights on the device."""
    total = 0
    for matrix in with_head(target):
        if matrix.role == "head" and not target.of("head"):
            total += _head_bytes(matrix, quantize)
        elif matrix.role in ("table", "ple_table"):
            total += _table_bytes(matrix, alone=matrix.role == "table" and bool(target.of("head")))
        else:
            total += _bytes(matrix, kept_as(matrix, quantize))
    return total


def drafter_bytes(drafter: HalfShape, quantize: Quantize | None) -> int:
    """Of a drafter's weights."""
    clustered = bool(drafter.of("centroids"))
    total = 0
    for matrix in drafter.matrices:
        if matrix.role == "ordering":
            total += 8 * matrix.elements
        elif matrix.role == "table":  # its head; in the order of clusters, always plain
            head = matrix._replace(role="head")
            total += matrix.elements * ITEM if clustered else _planes(head, kept_as(head, quantize))
        elif matrix.role in _PLANES:
            total += _planes(matrix, kept_as(matrix, quantize))
        else:
            total += _bytes(matrix, kept_as(matrix, quantize))
    return total


def _bytes(matrix: Matrix, kind: str) -> int:
    if matrix.role == "small":
        return matrix.elements * 4
    if matrix.role in ("router", "centroids") or kind not in KERNELS or _unpacks(matrix, kind):
        return matrix.elements * ITEM
    return matrix.copies * tiled_bytes(kind, matrix.rows, matrix.columns)


def _unpacks(matrix: Matrix, kind: str) -> bool:
    """A file's packed experts are unpacked; those packed when they are loaded stay packed."""
    return matrix.role.startswith("experts") and kind == matrix.kind


def _planes(matrix: Matrix, kind: str) -> int:
    if kind not in KERNELS:
        return matrix.elements * ITEM
    return planes_bytes(kind, matrix.rows, matrix.columns)


def _head_bytes(matrix: Matrix, quantize: Quantize | None) -> int:
    """Of a head that is the embedding table: nothing, unless it is another copy."""
    if matrix.kind not in ITEM_BYTES:
        return 0  # packed: one for both
    kind = kept_as(matrix, quantize)
    if kind in KERNELS:
        return tiled_bytes(kind, matrix.rows, matrix.columns)
    return 0 if matrix.kind == "BF16" else matrix.elements * ITEM


def _table_bytes(matrix: Matrix, *, alone: bool) -> int:
    if matrix.kind in ITEM_BYTES:
        return matrix.elements * (ITEM if alone else ITEM_BYTES[matrix.kind])
    if alone or matrix.kind not in KERNELS:
        return matrix.elements * ITEM
    return planes_bytes(matrix.kind, matrix.rows, matrix.columns)


def _is_plain(target: HalfShape) -> bool:
    return all(matrix.kind in ITEM_BYTES for matrix in target.of("ple_table"))


def prompt_bytes(target: HalfShape, setting: Setting, most: int) -> int:
    """The most that reading a chunk of `most` rows of a prompt holds beside weights and K/V."""
    rows = min(most, setting.num_ctx)
    stream = rows * target.hidden * (4 + 4 + ITEM)  # before and after a sum, and normed
    ple = rows * target.ple_dim * len(target.layers) * ITEM
    whole = target.layers[: max(1, target.first_shared - 1)]  # later ones see the last row only
    at_once = max(_layer_bytes(target, layer, rows, setting.quantize) for layer in set(whole))
    return stream + ple + max(at_once, ple)


def _layer_bytes(target: HalfShape, layer: LayerShape, rows: int, quantize: Quantize | None) -> int:
    hidden, total = target.hidden, layer.q_width + 2 * layer.kv_width
    few = rows <= MAX_TILE
    qkv = rows * (2 * total + layer.q_width) * ITEM
    mlp = rows * (hidden + (1 if few else 4) * layer.inner) * ITEM
    if not few:
        qkv += _unpacked(target, "qkv", total * hidden, quantize)
        mlp += _unpacked(target, "gate_up", 2 * layer.inner * hidden, quantize)
    return max(qkv, mlp, _experts_bytes(target, rows, quantize))


def _unpacked(target: HalfShape, role: str, elements: int, quantize: Quantize | None) -> int:
    """Of the plain copy of a packed matrix that many rows are multiplied with."""
    found = [m for m in target.matrices if m.role == role]
    return elements * ITEM if any(kept_as(m, quantize) in KERNELS for m in found) else 0


def _experts_bytes(target: HalfShape, rows: int, quantize: Quantize | None) -> int:
    """Of the routed half of a layer: pairs of row and expert, and unpacked experts."""
    routed, hidden = target.routed, target.hidden
    if routed is None:
        return 0
    pairs = rows * routed.top_k
    if rows <= MAX_TILE:
        return pairs * (hidden * 4 + routed.units * ITEM)
    work = pairs * hidden * (2 * ITEM + 2 * 4) + rows * (hidden * 4 + 4 * target_inner(target))
    if not any(kept_as(m, quantize) != m.kind for m in target.of("experts_up")):
        return work
    return work + (routed.up + routed.down) * ITEM


def target_inner(target: HalfShape) -> int:
    """Width of the widest dense MLP."""
    return max(layer.inner for layer in target.layers)


def round_rows(slots: int, depth: int) -> int:
    """Rows of the largest captured round."""
    return max(batch * (deepest(batch, depth) + 1) for batch in batches(slots))


def batches(slots: int) -> list[int]:
    """Numbers of sequences that rounds are captured for."""
    return sorted({min(2**power, slots) for power in range(slots.bit_length() + 1)})


def deepest(batch: int, depth: int) -> int:
    """The greatest depth of a captured round of so many sequences."""
    return max(0, min(depth, MAX_TILE // batch - 1))


def round_bytes(
    target: HalfShape, drafter: HalfShape | None, rows: int, ring: int, depth: int
) -> int:
    """The most that one round holds at once."""
    hidden = target.hidden
    stream = rows * (hidden * (4 + 4 + ITEM) + target.ple_dim * len(target.layers) * ITEM)
    pieces = piece_count(ring)
    attention = max(
        rows * (layer.q_width * (pieces if layer.kind == "full" else target.window // 64 + 2) * 4)
        for layer in target.layers
    )
    widest = max(layer.q_width + 2 * layer.kv_width for layer in target.layers)
    sums = rows * max(_SPLIT_COLUMNS, widest, target_inner(target)) * 4
    choosing = rows * (target.vocab * 4 + _CHOOSING)
    routed = _experts_bytes(target, min(rows, MAX_TILE), None)
    return stream + max(attention, choosing, routed) + sums


def piece_count(ring: int) -> int:
    """Pieces that a full layer's keys are cut into."""
    short = -(-ring // 64)
    few, more = min(short, 32), min(max(0, -(-(short - 32) // 4)), 56)
    return few + more + max(0, -(-(short - 256) // 8))


def graph_bytes(pair: PairShape, setting: Setting, depth: int) -> int:
    """Of all captured rounds and chunks: what each leaves, and what the driver keeps of it."""
    runtime = RUNTIMES[setting.kind]
    layers = len(pair.target.layers)
    steps = 0 if pair.drafter is None else len(pair.drafter.layers) + 2
    sizes = captured_chunks(pair.target, setting)
    total = _PROMPTS + 2 * prompt_bytes(pair.target, setting, max(sizes)) if sizes else 0
    total += len(sizes) * (runtime.graph_bytes + runtime.layer_bytes * layers)
    for batch in batches(setting.slots):
        for drafts in range(deepest(batch, depth) + 1):
            total += batch * (drafts + 1) * pair.target.hidden * ITEM
            total += runtime.graph_bytes + runtime.layer_bytes * (layers + drafts * steps)
    return total


def captured_chunks(target: HalfShape, setting: Setting) -> list[int]:
    """Rows of the prompts' chunks that are graphs: few, where matrices are packed or routed."""
    kept = {kept_as(m, setting.quantize) for m in target.of("qkv", "output", "gate_up", "down")}
    plain = target.routed is None and not kept & set(KERNELS)
    most = min(setting.num_ctx, CHUNKS_CAPTURED[-1] if plain else MAX_TILE)
    return [rows for rows in CHUNKS_CAPTURED if rows <= most]


def loading_bytes(target: HalfShape, setting: Setting) -> int:
    """What loading holds at once beside the weights that stay: none is packed in parts."""
    whole = {m: m.rows * m.columns for m in with_head(target)}  # of one
    if target.routed is not None:  # a layer's experts are one tensor
        whole |= dict.fromkeys(target.of("experts_up"), target.routed.up)
    if setting.quantize is None:
        parts = (whole[m] * ITEM for m in target.of("gate_up", "qkv", "experts_up"))
        return max(parts, default=0)
    changed = [m for m in whole if kept_as(m, setting.quantize) != m.kind]
    plain = sum(m.elements * ITEM for m in changed)
    stays = sum(_bytes(m, kept_as(m, setting.quantize)) for m in changed)
    waits = int(min(AHEAD_BYTES, plain) * (1 - stays / max(1, plain)))
    largest = max((whole[m] for m in changed if m.role != "head"), default=0)
    return waits + largest * (ITEM + 1) + _SEARCHING * min(largest, _PIECE)
