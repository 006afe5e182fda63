"""Products with a packed matrix on a CPU: by what of torch's kernels is fastest there.

Measured on one AVX2 core, [12288, 1536] and [1536, 12288], 1, 4 and 8 rows, milliseconds:

                                     [12288, 1536]          [1536, 12288]     of the largest result
    F.linear, float32              4.7   18.0   22.0      3.3   10.0   11.3     0
    FBGEMM, float16 weights        3.0    3.3    6.2      2.4    2.7    4.8     2e-4
    FBGEMM, int8 both              1.4    1.3    2.2      1.4    1.2    2.1     2e-2
    oneDNN, int8 both              5.2    7.3    8.1      4.0    4.6    5.5     2e-2
    _weight_int8pack_mm, bf16      3.5    7.9    9.1      1.8    3.7    7.0     9e-3 (a scale a row)
    _weight_int4pack_mm, bf16      3.1    4.8    7.8      2.8    3.9    7.6     3e-3
    _weight_int4pack_mm, float32  40.6  237.9  435.4     46.2  158.0  307.7     1e-6
    _dyn_quant_matmul_4bit        52.8  270.4  497.1     58.1  122.9  236.4     8e-3

None multiplies blocks of 32 at the speed of its bytes. So there are two ways. Float16 keeps the
values, rounded by 2^-11. Bytes change them: each row of weights gets one scale, each row of
activations another. That is what an int8 model asks for, and never done to other formats unasked.
"""

import logging
import platform
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gemmarunner.quant.formats import Packed

Linear = Callable[[Tensor], Tensor]  # [R, K] f32 or bf16 -> [R, N] of the same type

_log = logging.getLogger(__name__)
_CHUNK = 2**24  # weights unpacked at once
_LARGEST_HALF = 65504.0
_EDGES = 32  # columns added to activations: +1, -1 and zeros, a whole vector


def make_packed_linear(packed: Packed, *, requantize: bool = False) -> Linear:
    """A callable that multiplies rows with `packed`; it keeps its own copy, not `packed`.

    requantize: allow int8 activations and one scale a row of weights, twice as fast and about 2%
    off. Only for weights that were quantized here: a file's own were measured as they are. A row's
    result hangs on no other row: bit for bit with bytes, for float16 under the conditions that
    `models.linear` names.
    """
    if not _has_fbgemm() or packed.device.type != "cpu":
        _log.info("no packed product for %s here: its matrices are unpacked", packed.format)
        return _plain(packed.dequantized(torch.float32))
    return _bytes(packed) if requantize else _halves(packed)


def _has_fbgemm() -> bool:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and "fbgemm" in torch.backends.quantized.supported_engines


def _plain(weight: Tensor) -> Linear:
    def multiply(rows: Tensor) -> Tensor:
        return F.linear(rows.float(), weight).to(rows.dtype)

    return multiply


def _halves(packed: Packed) -> Linear:
    weight = packed.dequantized(torch.float32)
    if not _fits_half(weight):
        _log.info("weights beyond float16: a matrix %s is kept in float32", packed.shape)
        return _plain(weight)
    run = torch.ops.quantized.linear_dynamic_fp16.default._op  # past 3 us of Python a call
    kept = torch.ops.quantized.linear_prepack_fp16(weight, None)

    def multiply(rows: Tensor) -> Tensor:
        result: Tensor = run(rows.float(), kept)
        return result.to(rows.dtype)

    return multiply


def _fits_half(weight: Tensor) -> bool:
    """Whether all are finite in float16; no copy is made, which of a head would take gigabytes."""
    low, high = torch.aminmax(weight)
    return bool(low >= -_LARGEST_HALF) and bool(high <= _LARGEST_HALF)  # no NaN is


def _bytes(packed: Packed) -> Linear:
    kept = _row_scaled(packed)
    run = torch.ops.quantized.linear_dynamic.default._op
    # Without VNNI, pairs of products are summed in 16 bits: 8 and 8 bits would overflow.
    narrow = not torch.cpu._is_vnni_supported()
    edges = torch.zeros(1, _EDGES)
    edges[0, 0], edges[0, 1] = 1, -1

    def multiply(rows: Tensor) -> Tensor:
        # FBGEMM takes one range for all rows. Each row is brought to its own, and columns of +1 and
        # -1, whose weights are 0, make -1..1 the range of all: so no row changes another's result.
        largest = rows.abs().amax(1, keepdim=True).float().clamp_min(1e-30)
        scaled = torch.cat((rows / largest, edges.expand(rows.shape[0], -1)), 1)
        result: Tensor = run(scaled, kept, narrow)
        return result.mul_(largest).to(rows.dtype)

    return multiply


def _row_scaled(packed: Packed) -> object:
    """FBGEMM's form of the matrix in int8, a scale a row, and of `_EDGES` columns of zeros."""
    codes, scales = zip(*map(_row_codes, _chunks(packed)), strict=True)
    whole, scale = torch.cat(codes), torch.cat(scales).double()
    zero = torch.zeros(len(scale), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to move these elsewhere
        made = torch._make_per_channel_quantized_tensor(whole, scale, zero, 0)
        engine = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            kept: object = torch.ops.quantized.linear_prepack(made, None)
        finally:
            torch.backends.quantized.engine = engine
    return kept


def _row_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = (weight.abs().amax(1) / 127).clamp_min(1e-30)
    codes = (weight / scale[:, None]).round().to(torch.int8)
    return F.pad(codes, (0, _EDGES)), scale


def _chunks(packed: Packed) -> Iterator[Tensor]:
    ids = torch.arange(packed.shape[0])
    for part in torch.split(ids, max(1, _CHUNK // packed.shape[1])):
        yield packed.rows(part).dequantized(torch.float32)
