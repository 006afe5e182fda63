"""Heads: the kernel against its slow twin, the twin against the decoder's own rope and norm."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
import tests.fakes.triton_on_cpu  # noqa: F401  # before any kernel
from gemmarunner.kernels import heads
from gemmarunner.kernels.rows import Rows, row_positions, row_slots
from gemmarunner.models.config import RopeConfig
from gemmarunner.models.rope import RopeTable

D, HEADS, KV_HEADS, PER = 16, 2, 2, 2
ROWS = Rows(torch.tensor([2, 0], dtype=torch.int32), torch.tensor([131_060, 62]).int(), PER)


def settings(k_eq_v: bool, dtype: torch.dtype = torch.float32) -> dict[str, object]:
    shape = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": D}
    return {**shape, "k_eq_v": k_eq_v, "eps": 1e-6, "dtype": dtype}


def inputs(k_eq_v: bool, splits: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Partial sums, norm weights of queries and keys, frequencies with two still pairs."""
    columns = (HEADS + KV_HEADS * (1 if k_eq_v else 2)) * D
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(splits, 2 * PER, columns, generator=generator)
    q_weight, k_weight = torch.rand(2, D, generator=generator) + 0.5
    frequencies = torch.rand(D // 2, generator=generator)
    frequencies[-2:] = 0
    return parts, q_weight, k_weight, frequencies


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "on_gpu", lambda x: True)


def twin(k_eq_v: bool, *args: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    shape = heads.HeadShape(HEADS, KV_HEADS, D, k_eq_v)
    return heads.split_heads_slow(*args, ROWS, 1e-6, shape, dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("k_eq_v", [False, True])
def test_split_heads_kernel_equals_twin(by_kernel: None, k_eq_v: bool) -> None:
    """Queries, keys and values agree to 1e-5, also near position 131071."""
    given = inputs(k_eq_v)
    found = heads.split_heads(*given, ROWS, **settings(k_eq_v))  # type: ignore[arg-type]
    for got, expected in zip(found, twin(k_eq_v, *given), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("k_eq_v", [False, True])
@pytest.mark.parametrize("kernel", [False, True])
def test_write_heads_fills_its_places_alone(
    monkeypatch: pytest.MonkeyPatch, kernel: bool, k_eq_v: bool
) -> None:
    """Keys and values lie at slot and position % ring; no other place of the cache changes."""
    monkeypatch.setattr(heads, "on_gpu", lambda x: kernel)
    given = inputs(k_eq_v)
    cache = torch.full((3, 2, KV_HEADS, 64, D), 7.0)
    q = heads.write_heads(*given, cache, ROWS, **settings(k_eq_v))  # type: ignore[arg-type]
    expected_q, new = twin(k_eq_v, *given)
    expected = torch.full_like(cache, 7.0)
    for row, (slot, p) in enumerate(zip(row_slots(ROWS), row_positions(ROWS), strict=True)):
        expected[slot, :, :, p % 64] = new[:, :, row]
    torch.testing.assert_close(cache, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(q, expected_q, atol=1e-5, rtol=1e-5)


def test_rotate_queries_equals_the_queries_of_a_whole_projection(by_kernel: None) -> None:
    """A layer without keys rotates as one with keys, in bf16 too."""
    parts, q_weight, k_weight, frequencies = inputs(False)
    queries = parts[:, :, : HEADS * D].contiguous()
    kwargs = {"eps": 1e-6, "heads": HEADS, "head_dim": D, "dtype": torch.bfloat16}
    found = heads.rotate_queries(queries, q_weight, frequencies, ROWS, **kwargs)  # type: ignore[arg-type]
    expected, _ = twin(False, parts, q_weight, k_weight, frequencies, dtype=torch.bfloat16)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)


def test_model_dtype_sums_are_taken_as_they_are(by_kernel: None) -> None:
    """One bf16 part, as a matrix product of many rows gives, is the same as its f32 copy."""
    parts, *rest = inputs(False, splits=1)
    low = parts.bfloat16()
    found = heads.split_heads(low, *rest, ROWS, **settings(False))  # type: ignore[arg-type]
    expected = heads.split_heads(low.float(), *rest, ROWS, **settings(False))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("start", [0, 1000])
def test_twin_equals_the_decoders_rope_and_norm(start: int) -> None:
    """Proportional rope and RMS norm as `models` has them."""
    rope = RopeTable(RopeConfig(1e4, D // 8, 1.0), D, torch.device("cpu"), torch.float32)
    frequencies = torch.zeros(D // 2)
    frequencies[: D // 8] = 1e4 ** (-2 * torch.arange(D // 8) / D)
    parts, q_weight, _, _ = inputs(False)
    rows = Rows(torch.tensor([0]).int(), torch.tensor([start]).int(), 2 * PER)
    shape = heads.HeadShape(HEADS, KV_HEADS, D, False)
    given = (parts, q_weight, q_weight, frequencies)
    q, new = heads.split_heads_slow(*given, rows, 1e-6, shape, torch.float32)
    raw = parts.sum(0).unflatten(1, (-1, D))  # type: ignore[no-untyped-call]
    normed = torch.rms_norm(raw, (D,), q_weight, 1e-6)
    cos, sin = rope.rows(start, start + 2 * PER)
    turned = normed * cos + normed.roll(D // 2, -1) * sin
    torch.testing.assert_close(q, turned[:, :HEADS])
    torch.testing.assert_close(new[0].transpose(0, 1), turned[:, HEADS : HEADS + KV_HEADS])
    values = torch.rms_norm(raw[:, HEADS + KV_HEADS :], (D,), None, 1e-6)
    torch.testing.assert_close(new[1].transpose(0, 1), values)
