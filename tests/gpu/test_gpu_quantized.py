"""Packed matrices on an accelerator: the twins' numbers, and no word changed by drafting."""

from pathlib import Path

import pytest
import torch

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.cuda.loading import load_cuda_pair
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from gemmarunner.kernels import linear as dense
from gemmarunner.kernels.experts import experts_slow
from gemmarunner.models.packing import packer
from gemmarunner.quant.formats import Format, Packed, quantize
from gemmarunner.quant.tiled import can_tile, tiled
from gemmarunner.quant.tiled_experts import experts, tiled_experts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NANO = Path(__file__).parents[2] / "modelfiles/gemmamodelfiles/nano"
TILED = [Format.Q4_0, Format.Q8_0]


def matrix(format: Format, rows: int, columns: int) -> Packed:
    """A packed random matrix on the device."""
    generator = torch.Generator("cuda").manual_seed(rows)
    weight = torch.randn(rows, columns, generator=generator, device="cuda") * columns**-0.5
    return quantize(weight, format)


@pytest.mark.parametrize("shape", [(208, 1280), (72, 352), (1024, 4096)])
@pytest.mark.parametrize("format", TILED)
def test_products_are_the_twins(format: Format, shape: tuple[int, int]) -> None:
    """All operations on 1 to 128 rows: sums to float32's order, the others to bf16's rounding."""
    packed = matrix(format, *shape)
    wide, laid, pair = packed.dequantized(torch.float32), tiled(packed), tiled(packed, gated=True)
    for rows in (1, 4, 8, 9, 17, 40, 77, 128):
        x = torch.randn(rows, shape[1], device="cuda").bfloat16()
        ple = torch.randn(rows, shape[0], device="cuda").bfloat16()
        exact = x.double() @ wide.double().t()
        torch.testing.assert_close(laid.matmul(x).sum(0).double(), exact, atol=1e-5, rtol=1e-5)
        ours = [pair.gate_up(x), laid.ple_gate(x, ple), laid.head(x, 30.0)]
        twins = [
            dense.gate_up_slow(x.float(), wide),
            dense.ple_gate_slow(x.float(), wide, ple),
            dense.head_slow(x.float(), wide, 30.0),
        ]
        for one, other in zip(ours, twins, strict=True):
            torch.testing.assert_close(one.float(), other.float(), atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("shape", [(208, 1280), (1024, 4096), (4096, 256)])
@pytest.mark.parametrize("format", TILED)
def test_rows_are_the_same_in_any_company(format: Format, shape: tuple[int, int]) -> None:
    """Bit for bit, among 1 to 128 rows."""
    packed = matrix(format, *shape)
    laid, pair = tiled(packed), tiled(packed, gated=True)
    x = torch.randn(128, shape[1], device="cuda").bfloat16()
    sums, gated = laid.matmul(x), pair.gate_up(x)
    for rows in (1, 2, 5, 8, 9, 16, 17, 24, 25, 40, 41, 80, 127):
        assert torch.equal(laid.matmul(x[:rows]), sums[:, :rows])
        assert torch.equal(pair.gate_up(x[:rows]), gated[:rows])


@pytest.mark.parametrize("format", TILED)
def test_unpacking_is_exact(format: Format) -> None:
    """By the kernel, bit for bit what the format says."""
    packed = matrix(format, 72, 352)
    assert can_tile(packed)
    for gated in (False, True):
        found = tiled(packed, gated=gated).dequantized(torch.float32)
        assert torch.equal(found, packed.dequantized(torch.float32))


@pytest.mark.parametrize("format", TILED)
def test_experts_are_the_twins_in_any_company(format: Format) -> None:
    """16 experts, 4 a row, 352 columns that fill no step: the sums, and each row alone alike."""
    width, units, count = 256, 352, 16
    ups = [matrix(format, 2 * units, width) for _ in range(count)]
    downs = [matrix(format, width, units) for _ in range(count)]
    stacks = [torch.stack([m.dequantized(torch.float32) for m in some]) for some in (ups, downs)]
    up, down = tiled_experts(ups, gated=True), tiled_experts(downs)
    x = torch.randn(100, width, device="cuda").bfloat16()
    order = torch.rand(100, count, device="cuda").argsort(1)
    chosen, shares = order[:, :4].int().contiguous(), torch.rand(100, 4, device="cuda")
    whole = experts(x, up, down, shares, chosen)

    twin = experts_slow(x.float(), *stacks, shares, chosen)
    torch.testing.assert_close(whole, twin, atol=2e-2, rtol=1e-2)
    for rows in (1, 2, 5, 9, 16, 17, 40, 99):
        some = experts(x[:rows], up, down, shares[:rows].contiguous(), chosen[:rows].contiguous())
        assert torch.equal(some, whole[:, :rows])
    many = [part.repeat(2, *[1] * (part.ndim - 1)) for part in (x, shares, chosen)]
    grouped = experts(many[0], up, down, many[1], many[2])
    torch.testing.assert_close(grouped.sum(0)[:100], twin.sum(0), atol=5e-2, rtol=2e-2)


@pytest.mark.parametrize("kept", ["int8", "int4"])
def test_drafting_changes_no_word_of_a_packed_pair(kept: str) -> None:
    """The built-in pair packed at load: 400 tokens at depths 0 to 8 are the same."""
    parts = [
        {path.name: path for path in sorted((NANO / part).iterdir()) if path.is_file()}
        for part in ("target", "drafter")
    ]
    backend = load_cuda_pair(
        *parts, "cuda", torch.bfloat16, num_ctx=1024, max_depth=8, pack=packer(kept)
    )
    backend.warm(lambda *_: None)
    tokens = torch.randint(107, 8192, (300,), generator=torch.Generator().manual_seed(5)).tolist()
    texts = [_written(backend, tokens, depth, 400) for depth in (0, 1, 3, 8)]

    assert all(text == texts[0] for text in texts)


def _written(backend: CudaBackend, prompt: list[int], depth: int, length: int) -> list[int]:
    sampling = Sampling(temperature=0.0)
    by = Sampler(sampling, vocab=backend.vocab_size, device=backend.device)
    backend.truncate(0, 0)
    backend.prefill(0, prompt)
    text = [*prompt, backend.first(0, prompt, by)]
    while len(text) < len(prompt) + length:
        text += backend.launch([RoundPlan(0, text, by, depth)]).wait().tokens[0]
    return text[: len(prompt) + length]
