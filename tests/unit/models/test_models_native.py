"""Layers in the native library say what the plain ones say."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gemmarunner.models.target import Target
from gemmarunner.native.library import library, status
from tests.fakes.short_texts import ids, new_cache

pytestmark = pytest.mark.skipif(library() is None, reason=status())


def read(target: Target, text: Tensor, rows: int) -> Tensor:
    cache = new_cache(target)
    return torch.cat([target.forward(part, cache) for part in text.split(rows)])


@pytest.mark.parametrize("shape", ["e2b", "e4b", "12b", "26b", "31b"])
def test_native_layers_equal_plain_ones(pair_of: Callable, monkeypatch, shape) -> None:
    """To rounding, across windows' edges: the order of sums is another."""
    target, text = pair_of(shape).target, ids(140, 1)
    assert target._native, "these layers are native"
    native = read(target, text, 4)
    monkeypatch.setattr(target, "_native", None)

    plain = read(target, text, 4)

    torch.testing.assert_close(native, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", ["e2b", "12b", pytest.param("26b", marks=pytest.mark.slow)])
@pytest.mark.parametrize("threads", [1, 3])
def test_native_rows_do_not_hang_on_their_number(pair_of: Callable, shape, threads) -> None:
    """Bit for bit, whatever the number of threads: drafting changes no word."""
    target, text = pair_of(shape).target, ids(140, 2)
    alone = read(target, text, 1)
    torch.set_num_threads(threads)
    try:
        for rows in (2, 5, 9):
            assert torch.equal(read(target, text, rows), alone), rows
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("shape", ["e2b", "31b"])
def test_native_drafter_equals_the_plain_one(pair_of: Callable, monkeypatch, shape) -> None:
    """To rounding, over the committed keys of its donors."""
    pair = pair_of(shape)
    cache, token = new_cache(pair.target), torch.tensor([5])
    hidden = pair.target.forward(ids(40, 2), cache)[-1:]
    assert pair.drafter._native
    context = pair.drafter.prepare(cache)
    native = pair.drafter.step(token, hidden, context)
    monkeypatch.setattr(pair.drafter, "_native", None)

    plain = pair.drafter.step(token, hidden, context)

    for found, expected in zip(native, plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
