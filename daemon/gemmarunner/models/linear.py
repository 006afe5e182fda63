"""Matrices as callables: packed once for the CPU's fast kernels, plain elsewhere.

What verifying drafts needs of a matrix on a CPU: five rows for little more than one, and a row's
result that is the same bit for bit however many rows are computed with it. `F.linear` promises
neither. Measured on two AVX2 cores, [2048, 320] out of memory, one and five rows:
    F.linear                            235 us   390 us   rows differ
    oneDNN packed, float32              190 us   270 us   rows equal
    FBGEMM packed, float16 weights      105 us   130 us   rows equal among 3..6, 8 and 9 rows
float16 weights are used only where they hold the checkpoint's values exactly, as they do for bf16
of ordinary size; activations and sums are float32. Both packed kernels cost 15 us a call, so tiny
matrices run as one small product a row, which is equal too.
"""

import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Linear = Callable[[Tensor], Tensor]  # [rows, in] -> [rows, out]

# Up to here results don't depend on the number of rows, if it is first brought to `even_rows`.
EXACT_ROWS = 9
_EVEN_ROWS = {1: 3, 2: 3, 7: 8}  # FBGEMM sums in another order in blocks of one and two rows
_TINY_ELEMENTS = 2**13
_SMALL_ELEMENTS = 2**18
_HALF_ERROR = 2.0**-25  # what float16 loses of a bf16 below 2^-14, at most

_X86 = platform.machine().lower() in ("x86_64", "amd64")


MakeLinear = Callable[[Tensor], Linear]


def make_linear(weight: Tensor) -> Linear:
    """A callable that multiplies rows with `weight` [out, in]; it keeps one copy of it."""
    if not (_X86 and weight.device.type == "cpu" and weight.dtype is torch.float32):
        return _plain(weight)
    if weight.numel() <= _TINY_ELEMENTS:
        return _tiny(weight)
    if packs_half() and _fits_half(weight):
        return _packed_half(weight)
    return _packed(weight) if torch._C._has_mkldnn else _plain(weight)


def make_row_linear(weight: Tensor) -> Linear:
    """As `make_linear`, for one row at a time: a small matrix then is fastest as it is."""
    if weight.device.type == "cpu" and weight.numel() <= _SMALL_ELEMENTS:
        return _transposed(weight)
    return make_linear(weight)


def even_rows(rows: int) -> int:
    """The number of rows to compute so that each is the same as among any other number."""
    return _EVEN_ROWS.get(rows, rows)


def packs_half() -> bool:
    """Whether float32 models keep bf16 checkpoints' matrices in two bytes a weight here."""
    return _X86 and "fbgemm" in torch.backends.quantized.supported_engines


def _fits_half(weight: Tensor) -> bool:
    return bool((weight.half().float() - weight).abs().max() <= _HALF_ERROR)


def _plain(weight: Tensor) -> Linear:
    weight = weight.contiguous()

    def multiply(rows: Tensor) -> Tensor:
        return F.linear(rows, weight)

    return multiply


def _transposed(weight: Tensor) -> Linear:
    transposed = weight.t().contiguous()

    def multiply(rows: Tensor) -> Tensor:
        return torch.mm(rows, transposed)

    return multiply


def _tiny(weight: Tensor) -> Linear:
    transposed = weight.t().contiguous()

    def multiply(rows: Tensor) -> Tensor:
        count = rows.shape[0]
        if count > EXACT_ROWS:
            return torch.mm(rows, transposed)
        each = transposed.expand(count, -1, -1)
        return torch.bmm(rows.unsqueeze(1), each).squeeze(1)

    return multiply


def _packed_half(weight: Tensor) -> Linear:
    run = torch.ops.quantized.linear_dynamic_fp16.default._op  # past 3 us of Python a call
    packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), None)

    def multiply(rows: Tensor) -> Tensor:
        result: Tensor = run(rows, packed)
        return result

    return multiply


def _packed(weight: Tensor) -> Linear:
    # The operator torch's own compiler emits for a frozen linear layer on a CPU.
    run = torch.ops.mkldnn._linear_pointwise.default._op
    with torch.inference_mode():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    nothing: list[float] = []

    def multiply(rows: Tensor) -> Tensor:
        result: Tensor = run(rows, packed, None, "none", nothing, "")
        return result

    return multiply
