"""Products with packed matrices on a CPU, against the unpacked product."""

import pytest
import torch
from torch import Tensor

from gemmarunner.quant import cpu
from gemmarunner.quant.formats import Format, Packed, quantize

HAS_FBGEMM = pytest.mark.skipif(not cpu._has_fbgemm(), reason="needs FBGEMM")


def made(format: Format) -> tuple[Packed, Tensor]:
    """A packed random matrix [96, 320], and activations [12, 320] of very unequal rows."""
    generator = torch.Generator().manual_seed(0)
    packed = quantize(torch.randn(96, 320, generator=generator) * 0.05, format)
    x = torch.randn(12, 320, generator=generator) * torch.logspace(-2, 2, 12)[:, None]
    return packed, x


def lost(packed: Packed, x: Tensor, actual: Tensor) -> float:
    """The largest error of a row, relative to the row's root mean square."""
    expected = x.float() @ packed.dequantized(torch.float32).t()
    scale = expected.square().mean(1).sqrt()
    return float(((actual.float() - expected).square().mean(1).sqrt() / scale).max())


@HAS_FBGEMM
@pytest.mark.parametrize("format", [Format.Q8_0, Format.Q4_0])
def test_formats_lose_what_float16_loses(format: Format) -> None:
    """Unasked, the product is the unpacked one but for float16's rounding of the weights."""
    packed, x = made(format)

    actual = cpu.make_packed_linear(packed)(x)

    assert actual.dtype is torch.float32
    assert lost(packed, x, actual) < 2**-11


@HAS_FBGEMM
@pytest.mark.parametrize("outlier", [1e6, -1e6])
def test_a_weight_beyond_float16_stays_what_it_is(outlier: float) -> None:
    """Its matrix is kept in float32."""
    _, x = made(Format.Q8_0)
    weight = torch.zeros(96, 320)
    weight[3, 5] = outlier
    packed = quantize(weight, Format.Q8_0)

    torch.testing.assert_close(
        cpu.make_packed_linear(packed)(x), x @ packed.dequantized(torch.float32).t()
    )


@HAS_FBGEMM
@pytest.mark.parametrize("format", [Format.Q8_0, Format.Q4_0])
def test_bytes_lose_little_in_rows_of_any_size(format: Format) -> None:
    """Rows a thousand times smaller than their neighbours are as exact: each has its own scale."""
    packed, x = made(format)

    actual = cpu.make_packed_linear(packed, requantize=True)(x)

    assert lost(packed, x, actual) < 0.03


@HAS_FBGEMM
def test_bytes_rows_hang_on_no_other() -> None:
    """A row alone gives the bits that it gives among 2 to 12 rows."""
    packed, x = made(Format.Q8_0)
    multiply = cpu.make_packed_linear(packed, requantize=True)

    whole = multiply(x)

    for first, last in ((0, 1), (3, 5), (4, 9), (11, 12)):
        assert torch.equal(whole[first:last], multiply(x[first:last]))


@HAS_FBGEMM
def test_rows_of_zeros_give_zeros() -> None:
    """Nothing is divided by a largest activation of zero."""
    packed, x = made(Format.Q8_0)
    x[2] = 0

    assert (cpu.make_packed_linear(packed, requantize=True)(x)[2] == 0).all()


@pytest.mark.parametrize("fbgemm", [True, False])
def test_activations_keep_their_type(fbgemm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 rows give bf16 results, with FBGEMM and on machines without it."""
    monkeypatch.setattr(cpu, "_has_fbgemm", lambda: fbgemm and HAS_FBGEMM.args[0] is False)
    packed, x = made(Format.Q4_0)

    actual = cpu.make_packed_linear(packed)(x.bfloat16())

    assert actual.dtype is torch.bfloat16
    assert lost(packed, x.bfloat16(), actual) < 2**-7
