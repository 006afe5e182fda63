"""The quantized formats by name, and a matrix packed in one of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType

import torch
from torch import Tensor

from gemmarunner.quant import q4_0, q4_k, q5_k, q6_k, q8_0
from gemmarunner.quant.planes import Planes


class Format(StrEnum):
    """A way to pack weights; named as in GGUF files."""

    Q8_0 = "q8_0"
    Q4_0 = "q4_0"
    Q4_K = "q4_k"
    Q5_K = "q5_k"
    Q6_K = "q6_k"


INT8 = Format.Q8_0  # what `--quantize int8` makes of a bf16 checkpoint
INT4 = Format.Q4_0  # what `--quantize int4` makes of one, with searched scales

_MODULES: dict[Format, ModuleType] = {
    Format.Q8_0: q8_0,
    Format.Q4_0: q4_0,
    Format.Q4_K: q4_k,
    Format.Q5_K: q5_k,
    Format.Q6_K: q6_k,
}
_SUPER = 256
_CHUNK = 2**18, 2**24  # weights handled at once: on a CPU, what its cache holds; on a GPU


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix [N, K] in `format`; its planes are on one device and are never written again."""

    format: Format
    shape: tuple[int, int]
    planes: Planes

    @property
    def device(self) -> torch.device:
        """Where the planes are."""
        return self.planes.codes.device

    @property
    def nbytes(self) -> int:
        """Bytes in memory, of all planes."""
        return sum(plane.nbytes for plane in self.planes if plane is not None)

    @property
    def block(self) -> int:
        """Neighbouring weights of a row that share a scale."""
        return int(_MODULES[self.format].BLOCK)

    def to(self, device: torch.device | str) -> "Packed":
        """The same on `device`."""
        return Packed(self.format, self.shape, self.planes.mapped(lambda plane: plane.to(device)))

    def dequantized(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """The weights [N, K] in `dtype`; in float32 bit for bit as GGML computes them."""
        step = max(1, _CHUNK[0] // self.shape[1])
        if self.device.type != "cpu" or self.shape[0] <= step:
            weights: Tensor = _MODULES[self.format].unpacked(self.planes, self.shape[1])
            return weights.to(dtype)
        whole = torch.empty(self.shape, dtype=dtype, device=self.device)
        for begin in range(0, self.shape[0], step):
            ids = torch.arange(begin, min(begin + step, self.shape[0]), device=self.device)
            whole[begin : begin + step] = self.rows(ids).dequantized(dtype)
        return whole

    def rows(self, ids: Tensor) -> "Packed":
        """The matrix of rows `ids` [R] int64 alone, as an embedding looks them up."""
        codes, scale, high, *others = self.planes
        across = [None if p is None else p[:, ids] for p in others]
        planes = Planes(codes[ids], scale[:, ids], None if high is None else high[ids], *across)
        return Packed(self.format, (ids.shape[0], self.shape[1]), planes)

    def matmul(self, x: Tensor) -> Tensor:
        """See `quant.linear.matmul`; with the next three a `kernels.linear.PackedWeight`."""
        from gemmarunner.quant import linear

        return linear.matmul(x, self)

    def gate_up(self, x: Tensor) -> Tensor:
        """See `quant.linear.gate_up`."""
        from gemmarunner.quant import linear

        return linear.gate_up(x, self)

    def ple_gate(self, x: Tensor, ple: Tensor) -> Tensor:
        """See `quant.linear.ple_gate`."""
        from gemmarunner.quant import linear

        return linear.ple_gate(x, self, ple)

    def head(self, x: Tensor, softcap: float | None) -> Tensor:
        """See `quant.linear.head`."""
        from gemmarunner.quant import linear

        return linear.head(x, self, softcap)


class FileBlocks(Packed):
    """A matrix as a file holds it, whose planes are made each time when somebody asks for them."""

    __slots__ = ("blocks",)
    blocks: Tensor  # [N, blocks of a row, bytes] uint8

    def __init__(self, format: Format, shape: tuple[int, int], blocks: Tensor) -> None:
        for name, value in (("format", format), ("shape", shape), ("blocks", blocks)):
            object.__setattr__(self, name, value)

    @property
    def planes(self) -> Planes:
        planes: Planes = _MODULES[self.format].relaid(self.blocks)
        return planes

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""
        return self.blocks.device

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks."""
        return self.blocks.nbytes

    def rows(self, ids: Tensor) -> Packed:
        """The matrix of rows `ids` [R] int64 alone."""
        return FileBlocks(self.format, (ids.shape[0], self.shape[1]), self.blocks[ids])


def from_gguf(format: Format, data: Tensor, shape: tuple[int, int]) -> Packed:
    """The matrix of `shape` [N, K] whose blocks a GGUF file holds as `data`, uint8 in any shape.

    On a CPU it refers to `data`.

    Raises:
        ValueError: K is not a multiple of the format's block, or `data` has another size.
    """
    module = _MODULES[format]
    rows, columns = shape
    per = block_weights(format)
    if columns % per:
        raise ValueError(f"{format} packs rows of a multiple of {per} weights, not {columns}")
    expected = rows * (columns // per) * module.BLOCK_BYTES
    if data.numel() != expected:
        raise ValueError(f"{format} {shape} takes {expected} bytes, not {data.numel()}")
    blocks = data.reshape(rows, -1, module.BLOCK_BYTES)
    if data.device.type == "cpu":
        return FileBlocks(format, shape, blocks)
    return Packed(format, shape, module.relaid(blocks))


def quantize(weight: Tensor, format: Format, *, search: bool = True) -> Packed:
    """`weight` [N, K] of any float type packed as Q8_0 or Q4_0, K a multiple of 32.

    search: see `q4_0.quantized`; without it the blocks are GGML's, bit for bit.
    Raises:
        ValueError: another format, or a K that does not fit.
    """
    if format not in (Format.Q8_0, Format.Q4_0) or weight.shape[1] % 32:
        raise ValueError(f"cannot quantize {tuple(weight.shape)} to {format}")
    parts = [
        q8_0.quantized(chunk) if format is Format.Q8_0 else q4_0.quantized(chunk, search)
        for chunk in _chunks(weight)
    ]
    return from_gguf(format, torch.cat(parts), (weight.shape[0], weight.shape[1]))


def block_weights(format: Format) -> int:
    """Weights in one block of a file."""
    return 32 if format in (Format.Q8_0, Format.Q4_0) else _SUPER


def _chunks(weight: Tensor) -> Iterator[Tensor]:
    yield from torch.split(weight, max(1, _CHUNK[weight.is_cuda] // weight.shape[1]))
