"""A matrix in the library's layout, and its product with rows.

A row's result is the same bit for bit however many rows are computed with it, up to 64: each is
summed in the order of its columns, alone. (Prompts have more, and where a processor has tile
instructions those of bf16 run by them.) 16-bit and 32-bit weights are multiplied in float32.
Quantized ones are multiplied as bytes: a row's activations are rounded to 8 bits in blocks of 32,
each with a scale. Formats without a kernel of their own are kept as float16, rounded by 2^-11.
"""

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.footprint import count_mapped
from gemmarunner.native.library import Matrix, library
from gemmarunner.native.memory import Arena, Region
from gemmarunner.quant.formats import FileBlocks, Format, Packed
from gemmarunner.quant.planes import gather

_BF16, _F16, _F32, _Q8, _Q4 = range(5)
_KINDS = {Format.Q8_0: _Q8, Format.Q4_0: _Q4}
BLOCK = 32  # columns whose quantized activations share a scale
_CHUNK = 2**24  # weights brought into the library's order at once

_arena = Arena()


@contextmanager
def own_memory() -> Iterator[None]:
    """What this thread packs in the block is freed apart from all else."""
    _arena.renew()
    yield
    _arena.renew()


class _Source(NamedTuple):
    kind: int
    weights: Tensor  # [N, K] of the kind's bytes; of blocks as files have them if
    scales: Tensor | None = None  # [N, K / 32] f16 is missing where the kind has scales


def can_multiply(weight: Tensor | Packed) -> bool:
    """Whether there are kernels here for this matrix."""
    if library() is None or weight.device.type != "cpu" or weight.shape[1] % 2:
        return False
    return isinstance(weight, Packed) or weight.is_floating_point()


class Native:
    """rows [R, K] -> [R, N] in their dtype, computed in float32; keeps a copy of the matrix."""

    def __init__(self, weight: Tensor | Packed) -> None:
        """Raises OSError when there is no memory."""
        self.shape = (int(weight.shape[0]), int(weight.shape[1]))
        self.kind = _kind(weight)
        self._run = _functions().gm_linear
        self._region = _packed(weight, self.kind)
        count_mapped(self.nbytes)
        weakref.finalize(self, count_mapped, -self.nbytes).atexit = False
        self.matrix = Matrix(self.kind, *self.shape, self._region.address)
        self.address = ctypes.addressof(self.matrix)

    @property
    def is_quantized(self) -> bool:
        """Whether rows are rounded to bytes, in blocks of `BLOCK` columns."""
        return self.kind in (_Q8, _Q4)

    @property
    def nbytes(self) -> int:
        """Bytes that the matrix takes."""
        return int(_functions().gm_packed_bytes(self.kind, *self.shape))

    def __call__(self, rows: Tensor) -> Tensor:
        given = rows.dtype
        rows = rows.float().contiguous()
        count = rows.shape[0]
        out = torch.empty(count, self.shape[0])
        threads = torch.get_num_threads()
        if self._run(self.address, rows.data_ptr(), count, out.data_ptr(), threads):
            raise MemoryError("no memory for a product's activations")
        return out.to(given)


def _functions() -> ctypes.CDLL:
    found = library()
    assert found is not None, "ask `can_multiply` first"
    return found


def _kind(weight: Tensor | Packed) -> int:
    """The narrowest kind that holds the values."""
    if isinstance(weight, Packed):
        return _KINDS.get(weight.format, _F16) if weight.shape[1] % BLOCK == 0 else _F16
    if weight.dtype is torch.bfloat16:
        return _BF16
    if weight.dtype is torch.float16:
        return _F16
    if _holds(weight, torch.bfloat16):
        return _BF16
    return _F16 if _holds(weight, torch.float16) else _F32


def _holds(weight: Tensor, dtype: torch.dtype) -> bool:
    step = max(1, _CHUNK // weight.shape[1])
    return all(torch.equal(p.to(dtype).float(), p.float()) for p in torch.split(weight, step))


def _packed(weight: Tensor | Packed, kind: int) -> Region:
    rows, columns = int(weight.shape[0]), int(weight.shape[1])
    run = _functions()
    region = _arena.take(run.gm_packed_bytes(kind, rows, columns))
    step = max(16, _CHUNK // columns // 16 * 16)  # whole panels
    address, threads = region.address, torch.get_num_threads()
    for begin in range(0, rows, step):
        part = _source(weight, kind, begin, min(rows, begin + step))
        scales = None if part.scales is None else part.scales.data_ptr()
        count = part.weights.shape[0]
        run.gm_pack(kind, count, columns, part.weights.data_ptr(), scales, address, threads)
        address += run.gm_packed_bytes(kind, count, columns)
    return region


def _source(weight: Tensor | Packed, kind: int, begin: int, end: int) -> _Source:
    if isinstance(weight, Tensor):
        dtype = {_BF16: torch.bfloat16, _F16: torch.float16, _F32: torch.float32}[kind]
        return _Source(kind, weight[begin:end].to(dtype).contiguous())
    if isinstance(weight, FileBlocks) and kind != _F16:
        return _Source(kind, weight.blocks[begin:end].contiguous())
    part = weight.rows(torch.arange(begin, end))
    if kind == _F16:
        return _Source(kind, part.dequantized(torch.float16))
    columns = weight.shape[1]
    bits = 8 if kind == _Q8 else 4
    codes = gather(part.planes.codes, bits, BLOCK)[:, :columns].contiguous()
    scales = part.planes.scale.transpose(0, 1).flatten(1)[:, : columns // BLOCK]
    return _Source(kind, codes, scales.contiguous())
