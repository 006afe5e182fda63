"""Attention: kernels against slow twins, twins against a loop, rows against themselves alone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
import tests.fakes.triton_on_cpu  # noqa: F401  # before any kernel
from gemmarunner.kernels import attention, prompt_attention
from gemmarunner.kernels.rows import Rows
from tests.fakes.chunks import chunk_of

CHUNK, D = 16, 16
TILING = prompt_attention.Tiling(16, 16, 16, warps=4, stages=2)


def step(starts: list[int], per: int) -> Rows:
    """Sequences in slots 2, 0, 1."""
    return Rows(torch.tensor([2, 0, 1][: len(starts)]).int(), torch.tensor(starts).int(), per)


def filled(kv_heads: int, ring: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A cache of three slots."""
    generator = torch.Generator().manual_seed(ring)
    return torch.randn(3, 2, kv_heads, ring, D, generator=generator).to(dtype)


def queries(rows: int, heads: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, heads, D, generator=generator).to(dtype)


def by_loop(q: Tensor, cache: Tensor, rows: Rows, window: int | None, lag: int) -> Tensor:
    """Attention of each row and head in float64, keys gathered one by one."""
    out = torch.empty(q.shape, dtype=torch.float64)
    group = q.shape[1] // cache.shape[2]
    for row in range(q.shape[0]):
        b, i = divmod(row, rows.per)
        newest = int(rows.start[b]) + i - lag
        seen = range(max(0, newest - window + 1) if window else 0, newest + 1)
        at = torch.tensor([j % cache.shape[3] for j in seen])
        for head in range(q.shape[1]):
            keys, values = cache[int(rows.slot[b]), :, head // group][:, at].double()
            out[row, head] = (keys @ q[row, head].double()).softmax(0) @ values
    return out.flatten(1)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "window", "ring", "per", "lag", "starts"),
    [
        (4, 2, 8, 128, 2, 0, [130, 6]),
        (2, 2, 8, 128, 1, 1, [131, 1]),
        (4, 1, 40, 128, 3, 0, [1000]),
        (16, 1, None, 64, 1, 0, [50]),
        (1, 1, None, 64, 9, 1, [50]),
        pytest.param(1, 1, None, 768, 1, 0, [700], marks=pytest.mark.slow),
    ],
)
def test_attend_equals_twin_and_loop(
    heads: int,
    kv_heads: int,
    window: int | None,
    ring: int,
    per: int,
    lag: int,
    starts: list[int],
) -> None:
    """Groups of 1 to 16, wrapped rings, window edges, both lags."""
    cache, rows = filled(kv_heads, ring), step(starts, per)
    q = queries(len(starts) * per, heads)
    found = attention.attend_pieces(q, cache, rows, window=window, lag=lag, chunk=CHUNK)
    slow = attention.attend_slow(q, cache, rows, window=window, lag=lag)
    torch.testing.assert_close(found, slow, atol=1e-5, rtol=1e-4)
    expected = by_loop(q, cache, rows, window, lag)
    torch.testing.assert_close(slow.double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_attend_equals_twin_over_pieces_of_all_lengths() -> None:
    """The third length of pieces begins at 256 chunks."""
    cache, rows = filled(1, 4288), step([4250], 1)
    q = queries(1, 2)
    found = attention.attend_pieces(q, cache, rows, window=None, lag=0, chunk=CHUNK)
    slow = attention.attend_slow(q, cache, rows, window=None, lag=0)
    torch.testing.assert_close(found, slow, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("window", "start"), [(8, 13), pytest.param(40, 90, marks=pytest.mark.slow), (None, 13)]
)
def test_row_is_bit_equal_whatever_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch, window: int | None, start: int
) -> None:
    """Rows alone equal rows among others of their sequence and of other sequences."""
    # The interpreter's products must not depend on a row's place in its tile, as BLAS's do.
    monkeypatch.setattr(np, "matmul", lambda a, b, dtype: np.einsum("mk,kn->mn", a, b, dtype=dtype))
    cache, q = filled(1, 128, torch.bfloat16), queries(5, 1, torch.bfloat16)
    kind: dict[str, Any] = {"window": window, "lag": 0, "chunk": CHUNK}
    together = attention.attend_pieces(q, cache, step([start], 5), **kind)
    for i in (0, 4):
        alone = attention.attend_pieces(q[i : i + 1], cache, step([start + i], 1), **kind)
        assert torch.equal(alone[0], together[i])
    crowd = step([start, 77], 5)
    crowded = attention.attend_pieces(torch.cat((q, q)), cache, crowd, **kind)
    assert torch.equal(crowded[:5], together)


@pytest.mark.parametrize("window", [8, None])
def test_rows_of_padding_are_finite(window: int | None) -> None:
    """A row that sees no key gives finite numbers, also from a cache never written."""
    cache = torch.full((3, 2, 1, 128, D), torch.nan)
    cache[0] = 0
    q, rows = queries(2, 1), Rows(torch.tensor([0, 0]).int(), torch.tensor([0, -1]).int(), 1)
    kind: dict[str, Any] = {"window": window, "lag": 1}
    fast = attention.attend_pieces(q, cache, rows, chunk=CHUNK, **kind)
    assert fast.isfinite().all()
    assert attention.attend_slow(q, cache, rows, **kind).isfinite().all()


@pytest.mark.parametrize("window", [5, 16, 100])
def test_piece_count_holds_every_place_of_a_window(window: int) -> None:
    """Wherever a sequence stands, its pieces fit; no fewer would do."""
    per = 4
    spans = [(max(0, s - window + 1) // 16, (s + per - 1) // 16) for s in range(400)]
    most = max(last - first + 1 for first, last in spans)
    assert most <= attention.piece_count(192, window, per, 16) <= most + 1


@pytest.mark.parametrize("padding", [0, 21])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "window", "ring", "count", "start"),
    [
        (2, 1, 8, 128, 30, 200),
        (4, 4, 8, 128, 40, 5),
        (2, 2, None, 256, 50, 77),
        (16, 1, 40, 128, 5, 0),
        (2, 1, None, 128, 17, 0),
    ],
)
def test_prompt_attention_equals_twin_and_decode(
    heads: int, kv_heads: int, window: int | None, ring: int, count: int, start: int, padding: int
) -> None:
    """A chunk attended at once is the chunk stored and attended row by row; padding gets zeros."""
    cache, q = filled(kv_heads, ring), queries(count + padding, heads)
    generator = torch.Generator().manual_seed(1)
    new = torch.randn(2, kv_heads, count + padding, D, generator=generator)
    chunk = chunk_of(2, start, count, q.device, count + padding)
    slow = prompt_attention.attend_prompt_slow(q, new, cache, chunk, window)
    found = prompt_attention.attend_tiles(q, new, cache, chunk, window, TILING)
    torch.testing.assert_close(found, slow, atol=1e-5, rtol=1e-4)
    assert not found[count:].any()
    prompt_attention.store_prompt_slow(new, cache, chunk)
    rows = step([start], count)
    decoded = attention.attend_slow(q[:count], cache, rows, window=window, lag=0)
    torch.testing.assert_close(slow[:count], decoded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("count", "start", "padding"), [(3, 62, 0), (64, 10, 5), (150, 7, 0), (150, 7, 90), (1, 0, 63)]
)
def test_stored_prompt_is_its_last_positions(count: int, start: int, padding: int) -> None:
    """Every stored position lies at its index; of a long chunk only the last ring's worth."""
    cache, new = torch.zeros(2, 2, 3, 64, D), torch.randn(2, 3, count + padding, D)
    stored = cache.clone()
    chunk = chunk_of(1, start, count, new.device, count + padding)
    prompt_attention.store_prompt_slow(new, cache, chunk)
    for p in range(max(start, start + count - 64), start + count):
        assert torch.equal(cache[1, :, :, p % 64], new[:, :, p - start])
    assert not cache[0].any()
    assert int(cache[1, 0, 0].any(-1).sum()) == min(count, 64)

    prompt_attention.store_by_kernel(new, stored, chunk)

    assert torch.equal(stored, cache)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_shapes_compile_for_hopper() -> None:
    """Each kernel of each shape fits an SM, spills little and runs in the tensor cores meant."""
    program = Path(__file__).with_name("compile_attention.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
