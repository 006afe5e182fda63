"""Matrices as callables: packed once for the CPU's fast kernels, plain elsewhere.

What verifying drafts needs of a matrix on a CPU: four rows for little more than one, and a row's
result that is the same bit for bit however many rows are computed with it. The native library gives
both, see `native.linear`; what follows is for where there is none. `F.linear` promises
neither. Measured on two AVX2 cores, [24576, 1536] out of memory, one, four and eight rows, GB/s of
weights read:
    F.linear, float32                   17      5      4     rows differ
    oneDNN packed, float32              27     19     16     rows equal
    FBGEMM packed, float16 weights      26     20     11     rows equal but among 1, 2, 7 and 14
and a float16 weight is half the bytes. Float16 is used only where it holds the checkpoint's values
exactly, as it does for bf16 of ordinary size; activations and sums are float32. Which numbers of
rows are equal depends on the kernels of the CPU, so it is tried out once, see `even_rows`. Both
packed kernels cost 15 us a call, so tiny matrices run as one small product a row, equal too.
"""

import platform
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gemmarunner.native.library import library
from gemmarunner.native.linear import Native, can_multiply
from gemmarunner.quant.formats import Packed
from gemmarunner.quant.stacked import Stacked

Linear = Callable[[Tensor], Tensor]  # [rows, in] -> [rows, out]
MakeLinear = Callable[[Tensor | Packed | Stacked], Linear]

# Up to so many rows of one sequence, and of all sequences together, results don't depend on the
# number of rows, if it is first brought to `even_rows`.
EXACT_ROWS = 9
FEW_ROWS = 32
_TINY_ELEMENTS = 2**13
_SMALL_ELEMENTS = 2**18
_HALF_ERROR = 2.0**-25  # what float16 loses of a bf16 below 2^-14, at most
_PROBE_SHAPE = (96, 640)

_X86 = platform.machine().lower() in ("x86_64", "amd64")


def make_linear(weight: Tensor | Packed | Stacked, *, requantize: bool = False) -> Linear:
    """A callable that multiplies rows with `weight` [out, in]; it keeps one copy of it.

    requantize: a packed matrix may be approximated, see `quant.cpu.make_packed_linear`.
    """
    parts = weight.parts if isinstance(weight, Stacked) else (weight,)
    if can_multiply(*parts):
        return Native(*parts)
    if isinstance(weight, Stacked):
        return Beside([make_linear(part, requantize=requantize) for part in weight.parts])
    if isinstance(weight, Packed):
        from gemmarunner.quant.cpu import make_packed_linear

        linear: Linear = make_packed_linear(weight, requantize=requantize)
        return linear
    if weight.device.type != "cpu":
        return Plain(weight)
    if weight.dtype is torch.bfloat16 and fast_bf16():
        return Reordered(weight)
    if not (_X86 and weight.dtype is torch.float32):
        return Plain(weight)
    if weight.numel() <= _TINY_ELEMENTS or library() is not None:
        return Tiny(weight)
    if packs_half() and _fits_half(weight):
        return Half(weight)
    return Reordered(weight) if torch._C._has_mkldnn else Plain(weight)


def make_row_linear(weight: Tensor | Packed | Stacked) -> Linear:
    """As `make_linear`, for one row at a time: a small matrix then is fastest as it is."""
    plain = isinstance(weight, Tensor) and weight.device.type == "cpu" and not can_multiply(weight)
    if isinstance(weight, Tensor) and plain and weight.numel() <= _SMALL_ELEMENTS:
        return Transposed(weight)
    return make_linear(weight)


def even_rows(rows: int) -> int:
    """The number of rows to compute so that each is the same as among any other number."""
    if rows > FEW_ROWS or library() is not None:
        return rows
    return next((count for count in _equal_counts() if count >= rows), rows)


def packs_half() -> bool:
    """Whether float32 models keep bf16 checkpoints' matrices in two bytes a weight here."""
    if library() is not None:
        return True
    return _X86 and "fbgemm" in torch.backends.quantized.supported_engines


def fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware."""
    if not _X86:
        return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class Plain:
    """As torch multiplies."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.contiguous()

    def __call__(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight)


class Beside:
    """Several matrices one under the other, each multiplied in its own way."""

    def __init__(self, parts: Sequence[Linear]) -> None:
        self.parts = parts

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.cat([multiply(rows) for multiply in self.parts], 1)


class Transposed:
    """One product with the matrix turned round, which is faster for one row."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.t().contiguous()

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.mm(rows, self.weight)


class Tiny:
    """A small product for each of few rows."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.t().contiguous()

    def __call__(self, rows: Tensor) -> Tensor:
        count = rows.shape[0]
        if count > 2 * FEW_ROWS:  # `even_rows` of FEW_ROWS is no more
            return torch.mm(rows, self.weight)
        each = self.weight.expand(count, -1, -1)
        return torch.bmm(rows.unsqueeze(1), each).squeeze(1)


class Half:
    """FBGEMM's float16 weights under float32 rows."""

    def __init__(self, weight: Tensor) -> None:
        self._run: Any = torch.ops.quantized.linear_dynamic_fp16.default._op  # 3 us less Python
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), None)

    def __call__(self, rows: Tensor) -> Tensor:
        result: Tensor = self._run(rows, self.packed)
        return result


class Reordered:
    """oneDNN's packed weights, by the operator torch's own compiler emits on a CPU."""

    def __init__(self, weight: Tensor) -> None:
        self._run: Any = torch.ops.mkldnn._linear_pointwise.default._op
        with torch.inference_mode():
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self._nothing: list[float] = []

    def __call__(self, rows: Tensor) -> Tensor:
        result: Tensor = self._run(rows, self.packed, None, "none", self._nothing, "")
        return result


def _fits_half(weight: Tensor) -> bool:
    return all(
        bool((part.half().float() - part).abs().max() <= _HALF_ERROR)
        for part in torch.split(weight, 2**12)  # a head's copies would take gigabytes
    )


@cache
def _equal_counts() -> tuple[int, ...]:
    """The most numbers of rows up to twice FEW_ROWS among which a row's result is the same.

    Kernels work in blocks of rows and some blocks sum in another order; which do depends on the
    CPU and not on the matrix. So rows are multiplied in every number and compared.
    """
    if not _X86:
        return ()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_PROBE_SHAPE, generator=generator).bfloat16().float()
    rows = torch.randn(2 * FEW_ROWS, _PROBE_SHAPE[1], generator=generator)
    equal = set(range(1, 2 * FEW_ROWS + 1))
    for kind in (Half,) if packs_half() else (Reordered,):
        equal &= _equal_among(kind(weight), rows)
    return tuple(sorted(equal))


def _equal_among(multiply: Linear, rows: Tensor) -> set[int]:
    """The largest set of row counts whose results agree."""
    counts = range(1, rows.shape[0] + 1)
    results = {count: multiply(rows[:count]) for count in counts}
    best: set[int] = set()
    for size in (4, 1, 2):  # the block that others are compared with
        expected = torch.cat([multiply(part) for part in torch.split(rows, size)])
        agreeing = {n for n in counts if torch.equal(results[n], expected[:n])}
        best = max(best, agreeing, key=len)
    return best
