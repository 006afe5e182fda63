"""Each way to multiply a matrix computes the same product."""

import pytest
import torch
import torch.nn.functional as F

from gemmarunner.models import linear
from gemmarunner.models.linear import EXACT_ROWS, even_rows, make_linear, make_row_linear


def weight(out: int, width: int, halves: bool) -> torch.Tensor:
    exact = torch.randn(out, width, generator=torch.Generator().manual_seed(0)) / width**0.5
    return exact.bfloat16().float() if halves else exact


@pytest.mark.parametrize("halves", [True, False], ids=["bf16 values", "float32 values"])
@pytest.mark.parametrize(("out", "width"), [(16, 320), (320, 16), (384, 320), (257, 64)])
@pytest.mark.parametrize("make", [make_linear, make_row_linear])
def test_product_equals_the_plain_one(make, out, width, halves) -> None:
    """Packed, tiny or transposed, for one row and for many."""
    matrix = weight(out, width, halves)
    multiply = make(matrix)
    for count in (1, 2, 5, 40):
        rows = torch.randn(count, width, generator=torch.Generator().manual_seed(count))

        torch.testing.assert_close(multiply(rows), F.linear(rows, matrix), atol=1e-5, rtol=1e-5)


def test_half_packing_is_only_for_values_it_holds(monkeypatch) -> None:
    """A float32 checkpoint keeps its float32 weights."""
    monkeypatch.setattr(linear, "Half", lambda matrix: pytest.fail("would lose bits"))

    make_linear(weight(384, 320, halves=False))


@pytest.mark.parametrize("halves", [True, False], ids=["bf16 values", "float32 values"])
@pytest.mark.parametrize(("out", "width"), [(16, 320), (384, 320), (320, 1024), (2048, 320)])
def test_rows_do_not_depend_on_their_number(out, width, halves) -> None:
    """Bit for bit up to EXACT_ROWS, once brought to an even number of rows."""
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        pytest.skip("promised for AVX2 alone; other CPUs agree to rounding")
    multiply = make_linear(weight(out, width, halves))
    rows = torch.randn(EXACT_ROWS, width, generator=torch.Generator().manual_seed(9))
    expected = multiply(rows)
    for count in range(1, EXACT_ROWS + 1):
        filled = torch.cat((rows[:count], rows[: even_rows(count) - count]))

        assert torch.equal(multiply(filled)[:count], expected[:count]), count
