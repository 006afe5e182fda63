"""Matrices laid out for the tensor core keep every weight; its fragments multiply as they do."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("tests.fakes.triton_on_cpu")  # before any kernel

from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.kernels import linear as dense
from gemmarunner.kernels.experts import experts, experts_slow
from gemmarunner.quant import fragments_triton, tiled_linear
from gemmarunner.quant.formats import Format, Packed, from_gguf
from gemmarunner.quant.tiled import BLOCK, Tiled, tiled, unpacked_slow
from gemmarunner.quant.tiled_experts import tiled_experts
from tests.unit.quant.test_quant_formats import random_blocks
from tests.unit.quant.test_quant_ptx import run

FORMATS = (Format.Q4_0, Format.Q8_0)


def packed_of(format: Format, rows: int, columns: int, seed: int = 1) -> Packed:
    """A matrix with usual scales."""
    blocks = random_blocks(format, rows, columns, seed, extreme=False)
    return from_gguf(format, torch.from_numpy(blocks), (rows, columns))


@pytest.mark.parametrize("format", FORMATS)
@given(half_rows=st.integers(1, 40), blocks=st.integers(1, 14), gated=st.booleans())
@settings(max_examples=25, deadline=None)
def test_layout_keeps_every_weight(
    format: Format, half_rows: int, blocks: int, gated: bool
) -> None:
    """Bit for bit, also where rows fill no tile and columns no step."""
    packed = packed_of(format, 2 * half_rows, BLOCK * blocks)

    laid = tiled(packed, gated=gated)

    assert torch.equal(unpacked_slow(laid), packed.dequantized(torch.float32))
    assert laid.codes.is_contiguous()


def test_layout_in_parts_is_the_whole_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many tiles are laid out at once changes nothing."""
    packed = packed_of(Format.Q4_0, 104, 160)
    whole = [tiled(packed, gated=gated) for gated in (False, True)]
    monkeypatch.setattr("gemmarunner.quant.tiled._CHUNK", 2 * 16 * 160)

    for laid in whole:
        part = tiled(packed, gated=laid.gated)
        assert torch.equal(part.codes, laid.codes)
        assert torch.equal(part.scale, laid.scale)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_unpacking_kernel_is_the_twins(
    format: Format, gated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Triton's interpreter, where N and K fill no tile."""
    monkeypatch.setattr(tiled_linear, "on_gpu", lambda x: True)
    laid = tiled(packed_of(format, 40, 160), gated=gated)

    assert torch.equal(tiled_linear.unpacked(laid, torch.float32), unpacked_slow(laid))


@pytest.mark.parametrize("gated", [False, True])
def test_experts_are_unpacked_by_one_kernel(gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each to its own place, in Triton's interpreter."""
    matrices = [packed_of(Format.Q4_0, 40, 160, seed) for seed in range(3)]
    laid = tiled_experts(matrices, gated=gated)
    monkeypatch.setattr("gemmarunner.quant.tiled_experts.on_gpu", lambda x: True)

    expected = torch.stack([one.dequantized(torch.float32) for one in matrices])
    assert torch.equal(laid.dequantized(torch.float32), expected)


@pytest.mark.parametrize("format", FORMATS)
def test_fragments_multiply_as_the_matrix_does(format: Format) -> None:
    """What each lane reads, unpacked by the PTX and multiplied as the ISA says `mma` does."""
    packed = packed_of(format, 32, 256)
    laid, x = tiled(packed), torch.randn(8, 256, generator=torch.Generator().manual_seed(2))
    x = x.bfloat16().float()
    sums = np.zeros((32, 8))
    for tile in range(2):
        for block in range(8):
            part = _block_product(laid, x, tile, block)
            scale = packed.planes.scale.transpose(0, 1).flatten(1)[16 * tile :, block]
            sums[16 * tile : 16 * tile + 16] += part * scale[:16, None].double().numpy()

    expected = packed.dequantized(torch.float32).double() @ x.double().t()

    np.testing.assert_allclose(sums, expected.numpy(), rtol=1e-9, atol=1e-9)


def _block_product(laid: Tiled, x: Tensor, tile: int, block: int) -> Any:
    """Codes of a tile's block [16, 32] times activations [32, 8], by the lanes' fragments."""
    total = np.zeros((16, 8))
    lanes = [_lane(laid, x, tile, block, lane) for lane in range(32)]
    for pairs, values in (((0, 4, 1, 5), (0, 1)), ((2, 6, 3, 7), (2, 3))):  # of the two `mma`
        a, b = np.zeros((16, 16)), np.zeros((16, 8))
        for lane, (weights, rows) in enumerate(lanes):
            g, q = divmod(lane, 4)
            for place, pair in enumerate(pairs):  # a0: row g; a1: g + 8; a2, a3: columns 8 on
                column = 2 * q + 8 * (place // 2)
                a[g + 8 * (place % 2), column : column + 2] = weights[pair]
            for place, value in enumerate(values):
                b[2 * q + 8 * place : 2 * q + 8 * place + 2, g] = rows[2 * value : 2 * value + 2]
        total += a @ b
    return total


def _lane(laid: Tiled, x: Tensor, tile: int, block: int, lane: int) -> tuple[list[Any], Any]:
    """A lane's 8 pairs of weights (its upper row's, its lower row's) and 8 activations."""
    step, block = divmod(block, 4)
    words = laid.codes[tile, step, :, lane].flatten().tolist()  # as the kernel loads them
    weights: list[Any] = []
    for half in range(2):
        each = laid.codes.shape[2] // 2
        for word in words[(2 * block + half) * each : (2 * block + half + 1) * each]:
            weights += _unpacked(laid.format, word & 0xFFFFFFFF)
    g, q = divmod(lane, 4)
    start = 128 * step + 32 * block + 8 * q
    return weights, x[g, start : start + 8].numpy()


def _unpacked(format: Format, word: int) -> list[Any]:
    count = 4 if format is Format.Q4_0 else 2
    ptx = fragments_triton._Q4_0 if format is Format.Q4_0 else fragments_triton._Q8_0
    found = run(ptx.value, {f"${count}": word})
    return [found[f"${i}"] for i in range(count)]


@given(
    rows=st.integers(1, 128),
    shape=st.sampled_from([(2560, 10240), (20480, 2560), (256, 2560), (2560, 256), (1408, 704)]),
    whole=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_row_count_changes_the_order_of_sums(
    rows: int, shape: tuple[int, int], whole: bool
) -> None:
    """Splits and the warps that share a sum hang on the matrix alone; every row has a program."""
    for format in FORMATS:
        tiles, steps = -(-shape[0] // 16), -(-shape[1] // 128)
        codes = torch.empty(tiles, steps, 2 if format is Format.Q4_0 else 4, 0, 4)
        laid = Tiled(format, shape, codes, codes, False)
        one, cut = (tiled_linear.plan(laid, n, whole=whole) for n in (1, rows))

        assert (cut.splits, cut.deep) == (one.splits, one.deep)
        assert 1 <= cut.splits <= (1 if whole else 8)
        assert cut.side * cut.deep <= 16


@pytest.mark.parametrize("rows", [3, 130])
@pytest.mark.parametrize("format", FORMATS)
def test_elsewhere_products_are_the_dense_ones(format: Format, rows: int) -> None:
    """Without a GPU each operation is that of the unpacked matrix."""
    packed = packed_of(format, 64, 96)
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(3)).bfloat16()
    ple = torch.randn(rows, 64, generator=torch.Generator().manual_seed(4)).bfloat16()
    wide = packed.dequantized(torch.bfloat16)
    laid, pair = tiled(packed), tiled(packed, gated=True)

    assert torch.equal(laid.matmul(x), dense.matmul(x, wide))
    assert torch.equal(pair.gate_up(x), dense.gate_up(x, wide))
    assert torch.equal(laid.ple_gate(x, ple), dense.ple_gate(x, wide, ple))
    assert torch.equal(laid.head(x, 30.0), dense.head(x, wide, 30.0))
    assert laid.nbytes <= packed.nbytes * 1.1 * 128 / 96


@pytest.mark.parametrize("format", FORMATS)
def test_elsewhere_experts_are_the_dense_ones(format: Format) -> None:
    """Without a GPU a stack of experts is unpacked; each keeps its own weights."""
    ups = [packed_of(format, 64, 64, seed) for seed in range(3)]
    downs = [packed_of(format, 64, 32, seed) for seed in range(3)]
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(5)).bfloat16()
    chosen = torch.tensor([[0, 2], [1, 0], [2, 1], [0, 1], [1, 2]], dtype=torch.int32)
    shares = torch.rand(5, 2, generator=torch.Generator().manual_seed(6))
    wide = [torch.stack([one.dequantized() for one in some]) for some in (ups, downs)]
    up, down = tiled_experts(ups, gated=True), tiled_experts(downs)

    assert torch.equal(experts(x, up, down, shares, chosen), experts_slow(x, *wide, shares, chosen))
    assert (up.shape, down.shape) == ((3, 64, 64), (3, 64, 32))
