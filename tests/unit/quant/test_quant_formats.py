"""Packed matrices hold what a GGUF file's blocks hold, bit for bit."""

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.quant.formats import Format, Packed, block_weights, from_gguf, quantize

FORMATS = list(Format)
HALVES = np.array(
    [0.0, -0.0, 1.0, -1.5, 6e-8, -6e-8, 65504.0, -65504.0, np.inf, -np.inf, np.nan], np.float16
)
SCALE_AT = {"q8_0": [0], "q4_0": [0], "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208]}


def kind(format: Format) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[format.name]


def random_blocks(
    format: Format, rows: int, columns: int, seed: int, extreme: bool = True
) -> np.ndarray:
    """Random bytes, with scales drawn from usual sizes and, if `extreme`, half from extremes."""
    random = np.random.default_rng(seed)
    size = gguf.GGML_QUANT_SIZES[kind(format)][1]
    blocks = random.integers(0, 256, (rows, columns // block_weights(format), size), np.uint8)
    for at in SCALE_AT[format]:
        usual = (random.standard_normal(blocks.shape[:2]) * 0.01).astype(np.float16)
        edges = random.choice(HALVES, blocks.shape[:2])
        scales = np.where(extreme & (random.random(blocks.shape[:2]) < 0.5), edges, usual)
        blocks[..., at : at + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def same(expected: np.ndarray, actual: torch.Tensor) -> bool:
    """Equal bit for bit, any NaN being like any other."""
    return bool(np.array_equal(expected, actual.numpy(), equal_nan=True)) and bool(
        np.array_equal(
            np.signbit(expected[expected == 0]), np.signbit(actual.numpy()[expected == 0])
        )
    )


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 9), steps=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_dequantized_is_ggufs_bit_for_bit(format: Format, rows: int, steps: int, seed: int) -> None:
    """Every block, with zero, infinite, not-a-number and negative scales, gives gguf's float32."""
    columns = steps * block_weights(format)
    blocks = random_blocks(format, rows, columns, seed)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(blocks, kind(format))

    packed = from_gguf(format, torch.from_numpy(blocks), (rows, columns))

    assert same(expected, packed.dequantized(torch.float32))


@pytest.mark.parametrize("format", [Format.Q8_0, Format.Q4_0])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-20, 4))
def test_quantized_is_ggufs_bit_for_bit(format: Format, seed: int, exponent: int) -> None:
    """Without the search for a scale the blocks are those gguf makes, zeros included."""
    random = np.random.default_rng(seed)
    weight = (random.standard_normal((5, 96)) * 2.0**exponent).astype(np.float32)
    weight[0, :32] = 0
    weight[1] = np.round(weight[1])
    with np.errstate(all="ignore"):
        expected = quants.dequantize(quants.quantize(weight, kind(format)), kind(format))

    packed = quantize(torch.from_numpy(weight), format, search=False)

    assert same(expected, packed.dequantized(torch.float32))


def error(packed: Packed, weight: torch.Tensor) -> torch.Tensor:
    """The squared error of each block of 32."""
    lost = (packed.dequantized(torch.float32) - weight).square()
    return lost.unflatten(1, (-1, 32)).sum(-1)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_searched_scales_never_lose_to_plain_ones(seed: int) -> None:
    """A searched block's error is at most GGML's, and clearly less over many normal ones."""
    torch.manual_seed(seed)
    weight = torch.randn(16, 256) * 0.02

    searched = error(quantize(weight, Format.Q4_0), weight)
    plain = error(quantize(weight, Format.Q4_0, search=False), weight)

    assert (searched <= plain * 1.001 + 1e-12).all()
    assert searched.sum() < 0.95 * plain.sum()


@pytest.mark.parametrize("format", FORMATS)
def test_rows_are_the_matrix_rows(format: Format) -> None:
    """Looking up rows gives the same values as unpacking all and indexing."""
    blocks = random_blocks(format, 7, 512, 3)
    packed = from_gguf(format, torch.from_numpy(blocks), (7, 512))
    ids = torch.tensor([6, 0, 0, 3])

    expected = packed.dequantized(torch.float32)[ids]

    assert same(expected.numpy(), packed.rows(ids).dequantized(torch.float32))


@pytest.mark.parametrize("format", FORMATS)
def test_packed_is_hardly_larger_than_the_file(format: Format) -> None:
    """Planes take at most 3% more bytes than the file's blocks."""
    blocks = random_blocks(format, 4, 2560, 5)

    packed = from_gguf(format, torch.from_numpy(blocks), (4, 2560))

    assert blocks.nbytes <= packed.nbytes <= 1.03 * blocks.nbytes


def test_sizes_that_do_not_fit_are_refused() -> None:
    """A row that is no multiple of the block, or bytes of another count, raise `ValueError`."""
    with pytest.raises(ValueError, match="multiple of 256"):
        from_gguf(Format.Q6_K, torch.zeros(210, dtype=torch.uint8), (1, 128))
    with pytest.raises(ValueError, match="takes 18 bytes"):
        from_gguf(Format.Q4_0, torch.zeros(17, dtype=torch.uint8), (1, 32))
    with pytest.raises(ValueError, match="cannot quantize"):
        quantize(torch.zeros(2, 33), Format.Q8_0)
