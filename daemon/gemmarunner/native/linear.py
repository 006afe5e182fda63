"""A matrix in the library's layout, and its product with rows.

A row's result is the same bit for bit however many rows are computed with it, up to 64: each is
summed in the order of its columns, alone. (Prompts have more, and where a processor has tile
instructions those of bf16 run by them.) 16-bit and 32-bit weights are multiplied in float32.
Quantized ones are multiplied as bytes: a row's activations are rounded to 8 bits in blocks of 32,
each with a scale.
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

_BF16, _F16, _F32, _Q8, _Q4, _Q4K, _Q5K, _Q6K = range(8)
_DTYPES = {_BF16: torch.bfloat16, _F16: torch.float16, _F32: torch.float32}
_KINDS = {
    Format.Q8_0: _Q8,
    Format.Q4_0: _Q4,
    Format.Q4_K: _Q4K,
    Format.Q5_K: _Q5K,
    Format.Q6_K: _Q6K,
}
_FROM_PLANES = (Format.Q8_0, Format.Q4_0)  # the others are taken as a file has them
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


def can_multiply(*parts: Tensor | Packed) -> bool:
    """Whether there are kernels for these matrices, one under the other: of one form of rows."""
    if library() is None or any(p.device.type != "cpu" or p.shape[1] % 2 for p in parts):
        return False
    return all(map(_has_kernel, parts)) and len({isinstance(p, Packed) for p in parts}) == 1


def _has_kernel(part: Tensor | Packed) -> bool:
    if isinstance(part, Packed):
        return isinstance(part, FileBlocks) or part.format in _FROM_PLANES
    return part.is_floating_point()


class _Part:
    """One matrix in memory of the library's."""

    def __init__(self, weight: Tensor | Packed, below: "_Part | None") -> None:
        kind, (rows, columns) = _kind(weight), weight.shape
        self._region = _packed(weight, kind)
        self._below = None if below is None else below.matrix  # lives as long as its address
        under = None if self._below is None else ctypes.addressof(self._below)
        self.matrix: Matrix = Matrix(kind, rows, columns, self._region.address, under)

    @property
    def nbytes(self) -> int:
        made = self.matrix
        return int(_functions().gm_packed_bytes(made.kind, made.rows, made.columns))


class Native:
    """rows [R, K] -> [R, N] in their dtype, computed in float32; keeps a copy of the matrix."""

    def __init__(self, *parts: Tensor | Packed) -> None:
        """Of matrices one under the other, each in its own kind. Raises OSError without memory."""
        self.shape = (sum(part.shape[0] for part in parts), int(parts[0].shape[1]))
        self._run = _functions().gm_linear
        self._parts: list[_Part] = []
        for part in reversed(parts):
            self._parts.insert(0, _Part(part, self._parts[0] if self._parts else None))
        count_mapped(self.nbytes)
        weakref.finalize(self, count_mapped, -self.nbytes).atexit = False
        self.matrix = self._parts[0].matrix
        self.address = ctypes.addressof(self.matrix)

    @property
    def layout(self) -> tuple[tuple[int, int], ...]:
        """Each part's kind and number of rows."""
        return tuple((part.matrix.kind, part.matrix.rows) for part in self._parts)

    @property
    def is_quantized(self) -> bool:
        """Whether rows are rounded to bytes, in blocks of `BLOCK` columns."""
        return bool(self.matrix.kind >= _Q8)

    @property
    def nbytes(self) -> int:
        """Bytes that the matrix takes."""
        return sum(part.nbytes for part in self._parts)

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
        return _KINDS[weight.format]
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
        return _Source(kind, weight[begin:end].to(_DTYPES[kind]).contiguous())
    if isinstance(weight, FileBlocks):
        return _Source(kind, weight.blocks[begin:end].contiguous())
    part = weight.rows(torch.arange(begin, end))
    columns = weight.shape[1]
    bits = 8 if kind == _Q8 else 4
    codes = gather(part.planes.codes, bits, BLOCK)[:, :columns].contiguous()
    scales = part.planes.scale.transpose(0, 1).flatten(1)[:, : columns // BLOCK]
    return _Source(kind, codes, scales.contiguous())
