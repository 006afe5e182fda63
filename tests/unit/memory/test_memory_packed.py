"""Bytes of packed matrices, against the matrices themselves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.memory.packed import KERNELS, planes_bytes, tiled_bytes
from gemmad.memory.plain import native_bytes
from gemmad.memory.shapes import Matrix
from gemmarunner.models.gguf_types import FORMATS
from gemmarunner.native.library import library, status
from gemmarunner.native.linear import Native
from gemmarunner.quant.formats import Format, Packed, block_weights, from_gguf
from gemmarunner.quant.tiled import can_tile, tiled
from tests.unit.quant.test_quant_formats import random_blocks


def packed_of(format: Format, rows: int, blocks: int) -> Packed:
    """A matrix of so many blocks a row."""
    columns = blocks * block_weights(format)
    data = random_blocks(format, rows, columns, 1, extreme=False)
    found = from_gguf(format, torch.from_numpy(data), (rows, columns))
    return Packed(format, found.shape, found.planes)


@pytest.mark.parametrize("format", Format)
@given(rows=st.integers(1, 60), blocks=st.integers(1, 26))
@settings(max_examples=15, deadline=None)
def test_planes_take_what_the_estimate_says(format, rows, blocks):
    """To the byte, also where a row fills no step."""
    packed = packed_of(format, rows, blocks)
    assert planes_bytes(format.upper(), *packed.shape) == packed.nbytes


@pytest.mark.parametrize("format", [f for f in Format if f in ("q4_0", "q8_0")])
@given(rows=st.integers(1, 60), blocks=st.integers(1, 26))
@settings(max_examples=15, deadline=None)
def test_tiles_take_what_the_estimate_says(format, rows, blocks):
    """To the byte, also where rows fill no tile."""
    packed = packed_of(format, rows, blocks)
    assert can_tile(packed)
    assert tiled_bytes(format.upper(), *packed.shape) == tiled(packed).nbytes


@pytest.mark.skipif(library() is None, reason=status())
@pytest.mark.parametrize(("kind", "rows", "columns"), [
    ("BF16", 37, 64), ("F32", 16, 34), ("Q8_0", 100, 96), ("Q4_0", 16, 32),
    ("Q4_K", 40, 512), ("Q5_K", 16, 256), ("Q6_K", 20, 256),
])  # fmt: skip
def test_native_panels_take_what_the_estimate_says(kind, rows, columns):
    """To the byte, also where rows fill no panel."""
    if kind in KERNELS:
        kept = Native(
            packed_of(Format(kind.lower()), rows, columns // block_weights(Format(kind.lower())))
        )
    else:
        weight = torch.rand(rows, columns)
        kept = Native(weight.bfloat16().float() if kind == "BF16" else weight)
    assert native_bytes(Matrix("qkv", kind, rows, columns), kind) == kept.nbytes


def test_what_has_kernels_is_what_stays_packed():
    """The runner's own list."""
    assert {format.upper() for format in FORMATS.values()} == KERNELS
    assert tiled_bytes("Q6_K", 16, 256) == planes_bytes("Q6_K", 16, 256)
