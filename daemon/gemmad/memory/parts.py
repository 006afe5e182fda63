"""How a pair would be loaded, and the bytes that come of it: what estimates work with."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from gemmad.memory.readings import DeviceKind
from gemmad.memory.shapes import HalfShape, Matrix
from gemmad.wire import Quantize

CpuKind = Literal["native", "half", "bf16", "float32"]

_SMALL_ELEMENTS = 2**16  # smaller matrices are never packed
_KEPT = ("ple_gate", "ple_widen", "ple_context")
_PACKED = {"int8": "Q8_0", "int4": "Q4_0"}
_UNPACKABLE = ("table", "ple_table", "router", "centroids", "ordering", "small")
_SMALL_MODEL_BYTES = 256 << 20  # up to here texts stay exact in float32
ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "I8": 1}


@dataclass(frozen=True, slots=True)
class Setting:
    """One way of loading a pair."""

    num_ctx: int
    slots: int = 1
    max_depth: int = 8
    kind: DeviceKind = "cuda"
    drafter: bool = True
    quantize: Quantize | None = None
    draft_quantize: Quantize | None = None
    ple_on_host: bool = False
    deterministic: bool = False
    media: bool = False  # towers are loaded too
    unified: bool = False  # the device's memory is the host's
    cpu: CpuKind = "half"  # how this machine's CPU keeps matrices, see `probe.cpu_kind`
    free: int | None = None  # bytes; on a CPU the dtype hangs on it
    fused: bool = True  # Triton runs here; without it everything is plain calls

    @property
    def is_fused(self) -> bool:
        """Whether rounds are captured as graphs of fused kernels."""
        return self.kind in ("cuda", "rocm") and self.fused


class Parts(NamedTuple):
    """Bytes on the device, but for the last two."""

    target: int
    drafter: int
    kv: int
    drafter_state: int
    workspace: int
    graphs: int = 0
    host: int = 0  # in the process's own memory
    mapped: int = 0  # of files, which stay mapped


class LayerBytes(NamedTuple):
    """Of one layer of a target, on its device."""

    weights: int
    kv: int  # of all slots


def kept_as(matrix: Matrix, quantize: Quantize | None) -> str:
    """In what a matrix is kept when the pair is loaded so: its own kind, or the one it becomes."""
    plain = matrix.kind in ITEM_BYTES
    if quantize is None or not plain or matrix.role in _UNPACKABLE or matrix.role in _KEPT:
        return matrix.kind
    if matrix.rows * matrix.columns < _SMALL_ELEMENTS or matrix.columns % 32:
        return matrix.kind
    return "Q8_0" if matrix.role == "head" else _PACKED[quantize]


def with_head(half: HalfShape) -> list[Matrix]:
    """The matrices; the head among them where it is the table in another form when packed."""
    if half.of("head"):
        return list(half.matrices)
    [table] = half.of("table")
    return [*half.matrices, table._replace(role="head")]


def is_small(half: HalfShape) -> bool:
    """Whether it runs in float32 wherever rows are not exact in 16 bits."""
    item = 4 if half.floating == "F32" else 2
    return half.elements * item <= _SMALL_MODEL_BYTES
