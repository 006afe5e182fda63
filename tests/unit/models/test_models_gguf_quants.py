"""Weights out of GGUF blocks are the reference package's, bit for bit, for every type."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from gemmad.api.errors import LoadFailed
from gemmarunner.models import gguf_types
from gemmarunner.models.gguf_types import FORMATS, Blocks, FileTable, PackedTable, packed, unpacked
from tests.fakes.gguf_pairs import random_blocks

ROWS, COLUMNS = 5, 512
UNPACKABLE = (Kind.Q8_1, Kind.Q8_K, Kind.Q1_0)
NUMBERS = (Kind.I8, Kind.I16, Kind.I32, Kind.I64, Kind.F64)
KNOWN = [kind for kind in Kind if kind not in (*UNPACKABLE, *NUMBERS)]


def blocks_of(kind: Kind, seed: int = 0) -> tuple[Blocks, np.ndarray]:
    """A random matrix of the type, and the package's numbers of it."""
    data = random_blocks(ROWS, COLUMNS, kind, seed)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(data, kind)
    blocks = Blocks(int(kind), torch.from_numpy(data).view(-1), (ROWS, COLUMNS))
    return blocks, expected.reshape(ROWS, COLUMNS)


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.name)
@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_the_packages(kind: Kind, seed: int) -> None:
    """Every weight of every type, NaN and infinities of random scales included."""
    blocks, expected = blocks_of(kind, seed)
    with np.errstate(all="ignore"):
        found = unpacked(blocks, torch.float32).numpy()

    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.name)
def test_rows_are_looked_up_where_they_lie(kind: Kind) -> None:
    """A table gives the rows that are asked for, in their order and as often as asked."""
    blocks, expected = blocks_of(kind)
    if kind in (Kind.F32, Kind.F16):
        pytest.skip("plain tables are tensors")
    with np.errstate(all="ignore"):
        found = FileTable(blocks).look_up(torch.tensor([3, 0, 3]), torch.float32)

    np.testing.assert_array_equal(found.numpy(), expected[[3, 0, 3]])


@pytest.mark.parametrize("type", FORMATS)
def test_packed_matrices_are_cut_and_joined_soundly(
    monkeypatch: pytest.MonkeyPatch, type: int
) -> None:
    """Packed a few rows at a time, a matrix has the same weights, also by rows."""
    monkeypatch.setitem(gguf_types._CHUNK_WEIGHTS, "cpu", 2 * COLUMNS)
    blocks, expected = blocks_of(Kind(type))
    found = packed(blocks)

    assert found.shape == (ROWS, COLUMNS)
    np.testing.assert_array_equal(found.dequantized(torch.float32).numpy(), expected)
    rows = PackedTable(found).look_up(torch.tensor([4, 1]), torch.float32)
    np.testing.assert_array_equal(rows.numpy(), expected[[4, 1]])


@pytest.mark.parametrize("kind", UNPACKABLE, ids=lambda kind: kind.name)
def test_types_nobody_can_unpack_are_told(kind: Kind) -> None:
    """The reader learns the type and what to use instead."""
    data = torch.zeros(ROWS * COLUMNS * 4, dtype=torch.uint8)
    size = gguf.GGML_QUANT_SIZES[kind]
    blocks = Blocks(int(kind), data[: ROWS * COLUMNS // size[0] * size[1]], (ROWS, COLUMNS))

    with pytest.raises(LoadFailed, match=f"{kind.name} cannot be unpacked"):
        unpacked(blocks, torch.float32)


def test_whole_numbers_stay_whole() -> None:
    """An ordering is no weight."""
    data = torch.arange(8, dtype=torch.int32).view(torch.uint8)

    assert torch.equal(unpacked(Blocks(26, data, (8,)), torch.bfloat16), torch.arange(8).int())
