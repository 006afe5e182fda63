"""The norms' Triton kernels, in the interpreter, against their slow twins."""

import pytest
import torch

pytest.importorskip("triton")
import tests.fakes.triton_on_cpu  # noqa: F401  isort: skip
from gemmarunner.kernels import norm as ops
from gemmarunner.kernels import norm_triton

EPS = 1e-6
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2}


def _weight(width: int) -> torch.Tensor:
    return torch.rand(width) + 0.5


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (3, 96), (5, 130), (2, 1)])
def test_norm_is_its_twin(rows: int, width: int, dtype: torch.dtype) -> None:
    """The kernel's rows are the twin's, also where the width is no power of two."""
    x, weight = torch.randn(rows, width), _weight(width)
    found = norm_triton.norm(x.to(dtype), weight, EPS, dtype)

    expected = ops.norm_slow(x.to(dtype), weight, EPS, dtype)
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("splits", [1, 3, 8])
@pytest.mark.parametrize("nexts", ["", "w", "n", "ww", "wnw"])
def test_add_norm_is_its_twin(splits: int, nexts: str, dtype: torch.dtype) -> None:
    """Residual and each next input are the twin's, for any choice of next norms."""
    rows, width = 3, 72
    x, parts, post = torch.randn(rows, width), torch.randn(splits, rows, width), _weight(width)
    weights = tuple(_weight(width) if n == "w" else None for n in nexts)
    found = norm_triton.add_norm(x, parts, post, EPS, 0.25, weights, dtype)
    expected = ops.add_norm_slow(x, parts, post, EPS, 0.25, weights, dtype)

    torch.testing.assert_close(found[0], expected.residual, atol=1e-5, rtol=1e-5)
    assert len(found[1]) == len(nexts)
    for a, b in zip(found[1], expected.nexts, strict=True):
        torch.testing.assert_close(a, b, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_add_norm_takes_parts_of_the_models_dtype() -> None:
    """One part in bf16, as the library's product gives it, is summed in f32."""
    x, parts, post = torch.randn(2, 64), torch.randn(1, 2, 64).bfloat16(), _weight(64)
    found = norm_triton.add_norm(x, parts, post, EPS, 1.0, (post,), torch.float32)
    expected = ops.add_norm_slow(x, parts, post, EPS, 1.0, (post,), torch.float32)

    torch.testing.assert_close(found[1][0], expected.nexts[0], atol=1e-5, rtol=1e-5)


def test_add_experts_norm_is_its_twin() -> None:
    """Both branches have their own norm before the common one."""
    x, dense, routed = torch.randn(3, 80), torch.randn(2, 3, 80), torch.randn(4, 3, 80)
    weights = [_weight(80) for _ in range(4)]
    branches = ops.Experts(dense, routed, weights[0], weights[1])
    rest = (weights[2], EPS, 0.5, (weights[3], None), torch.float32)
    found = norm_triton.add_experts_norm(x, branches, *rest)
    expected = ops.add_experts_norm_slow(x, branches, *rest)

    torch.testing.assert_close(found[0], expected.residual, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1][0], expected.nexts[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(found[1][1], found[0])


def test_a_row_is_the_same_among_others() -> None:
    """A row's residual has the same bits alone and among four."""
    x, parts, post = torch.randn(4, 64), torch.randn(2, 4, 64), _weight(64)
    many = norm_triton.add_norm(x, parts, post, EPS, 1.0, (), torch.float32)[0]
    one = norm_triton.add_norm(x[2:3], parts[:, 2:3], post, EPS, 1.0, (), torch.float32)[0]

    assert torch.equal(one[0], many[2])


def test_ops_run_their_twins_without_an_accelerator() -> None:
    """On the CPU the public operations are the twins."""
    x, weight = torch.randn(2, 64), _weight(64)
    parts = torch.randn(3, 2, 64)
    found = ops.add_norm(x, parts, weight, EPS, 2.0, (weight, None), torch.bfloat16)
    expected = ops.add_norm_slow(x, parts, weight, EPS, 2.0, (weight, None), torch.bfloat16)

    assert torch.equal(found.residual, expected.residual)
    assert [n.dtype for n in found.nexts] == [torch.bfloat16] * 2
    assert torch.equal(
        ops.norm(x, weight, EPS, torch.float32), ops.norm_slow(x, weight, EPS, torch.float32)
    )
