"""A GGUF tensor's bytes as numbers, or as a packed matrix where there are kernels for its type."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmad.formats.ggml_types import GGML_TYPES
from gemmarunner.quant.formats import Format, Packed, from_gguf
from gemmarunner.quant.stacked import joined

PLAIN = {
    0: torch.float32,
    1: torch.float16,
    24: torch.int8,
    25: torch.int16,
    26: torch.int32,
    27: torch.int64,
    28: torch.float64,
    30: torch.bfloat16,
}
FORMATS = {
    2: Format.Q4_0,
    8: Format.Q8_0,
    12: Format.Q4_K,
    13: Format.Q5_K,
    14: Format.Q6_K,
}
# Weights handled at once: on a CPU, what its cache holds (four times as fast); on a GPU.
_CHUNK_WEIGHTS = {"cpu": 2**18}
_LARGE_CHUNK = 2**25


class Blocks(NamedTuple):
    """A tensor as it lies in a file."""

    type: int  # ggml's id
    data: Tensor  # [nbytes] uint8
    shape: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Weights in a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> Tensor:
        """The bytes of each row [rows, bytes]."""
        kind = GGML_TYPES[self.type]
        return self.data.view(-1, self.columns // kind.block_weights * kind.block_bytes)


def experts_apart(blocks: Blocks) -> list[Blocks]:
    """The matrices of a stack [experts, out, in]."""
    each = blocks.data.view(blocks.shape[0], -1)
    return [Blocks(blocks.type, data, blocks.shape[1:]) for data in each]


def packed(blocks: Blocks) -> Packed:
    """The matrix, packed as the file has it; its type is one of `FORMATS`."""
    if blocks.data.device.type == "cpu":  # nothing is made of them yet
        return _packed_rows(blocks, blocks.rows)
    parts = [_packed_rows(blocks, rows) for rows in _chunks(blocks)]
    return joined(parts)


def unpacked(blocks: Blocks, dtype: torch.dtype) -> Tensor:
    """The numbers in `dtype` (whole ones as they are): GGML's own bit for bit in float32.

    Raises:
        LoadFailed: nobody knows how to unpack this type.
    """
    if blocks.type in PLAIN:
        plain = blocks.data.view(PLAIN[blocks.type]).view(blocks.shape)
        return plain.to(dtype) if plain.is_floating_point() else plain
    whole = torch.empty((len(blocks.rows), blocks.columns), dtype=dtype, device=blocks.data.device)
    begin = 0
    for rows in _chunks(blocks):
        whole[begin : begin + len(rows)] = _unpacked_rows(blocks, rows)
        begin += len(rows)
    return whole.view(blocks.shape)


class FileTable:
    """A table whose rows are unpacked out of the mapped file as they are looked up."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._rows = blocks.rows

    def look_up(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """See `models.weights.Lookup`."""
        return _unpacked_rows(self._blocks, self._rows[ids]).to(dtype)


class TensorTable:
    """A plain table."""

    def __init__(self, table: Tensor) -> None:
        self._table = table

    def look_up(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """See `models.weights.Lookup`."""
        return self._table.index_select(0, ids).to(dtype)


class PackedTable:
    """A packed table in the device's memory."""

    def __init__(self, table: Packed) -> None:
        self._table = table

    def look_up(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """See `models.weights.Lookup`."""
        return self._table.rows(ids).dequantized(dtype)


def _chunks(blocks: Blocks) -> Iterator[Tensor]:
    yield from torch.split(blocks.rows, max(1, _chunk_weights(blocks) // blocks.columns))


def _chunk_weights(blocks: Blocks) -> int:
    return _CHUNK_WEIGHTS.get(blocks.data.device.type, _LARGE_CHUNK)


def _packed_rows(blocks: Blocks, rows: Tensor) -> Packed:
    return from_gguf(FORMATS[blocks.type], rows, (len(rows), blocks.columns))


def _unpacked_rows(blocks: Blocks, rows: Tensor) -> Tensor:
    """Numbers [rows, columns] float32 of rows of bytes."""
    if blocks.type in FORMATS:
        return _packed_rows(blocks, rows).dequantized(torch.float32)
    from gguf import GGMLQuantizationType, quants

    try:
        kind = GGMLQuantizationType(blocks.type)
        found = quants.dequantize(rows.cpu().numpy(), kind)
    except (ValueError, NotImplementedError) as error:
        raise LoadFailed(
            f"Weights of type {GGML_TYPES[blocks.type].name} cannot be unpacked here.",
            fix="Use another quantization of the model, such as Q4_K_M or Q8_0.",
        ) from error
    return torch.from_numpy(found).to(rows.device)
