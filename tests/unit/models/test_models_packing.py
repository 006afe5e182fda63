"""What `--quantize` packs, and what it leaves."""

import pytest
import torch

from gemmarunner.models.packing import packer
from gemmarunner.quant.formats import Format, Packed

BIG = torch.randn(512, 256, generator=torch.Generator().manual_seed(0)).bfloat16()


@pytest.mark.parametrize(
    ("wanted", "name", "format"),
    [
        ("int8", "down", Format.Q8_0),
        ("int4", "down", Format.Q4_0),
        ("int4", "head", Format.Q8_0),
    ],
)
def test_big_matrices_are_packed(wanted: str, name: str, format: Format) -> None:
    """In the format asked for; the head keeps eight bits."""
    packed = packer(wanted)(name, BIG)

    assert isinstance(packed, Packed)
    assert (packed.format, packed.shape) == (format, (512, 256))
    assert packed.nbytes < 0.6 * BIG.nbytes
    close = (packed.dequantized(torch.float32) - BIG.float()).abs().max()
    assert close < (0.02 if format is Format.Q8_0 else 0.6)


@pytest.mark.parametrize(
    ("wanted", "name", "matrix"),
    [(None, "down", BIG), ("int8", "down", BIG[:4]), ("int8", "ple_gate", BIG),
     ("int4", "down", BIG[:, :250])],
)  # fmt: skip
def test_others_stay(wanted: str | None, name: str, matrix: torch.Tensor) -> None:
    """Small ones, gates, and widths that make no whole blocks."""
    kept = packer(wanted)(name, matrix)

    assert isinstance(kept, torch.Tensor)
    assert torch.equal(kept, matrix)


def test_unknown_quantization_is_refused() -> None:
    """With what is accepted."""
    with pytest.raises(ValueError, match="int8 or int4"):
        packer("int2")
