"""Compiled layers and common forwards say what the plain ones say."""

from collections.abc import Callable

import pytest
import torch

from tests.fakes.short_texts import ids, new_cache


@pytest.mark.parametrize(
    ("shape", "rows"),
    [("e2b", 1), ("12b", 7), *(pytest.param(s, 4, marks=pytest.mark.slow) for s in ("e4b", "31b"))],
)
def test_scripted_layers_equal_plain_ones(
    torch_pair_of: Callable, monkeypatch, shape, rows
) -> None:
    """Bit for bit, across windows' edges: both run the same operators."""
    target, text = torch_pair_of(shape).target, ids(140, 1)
    assert target._scripted, "these layers can be compiled"
    cache = new_cache(target)
    scripted = torch.cat([target.forward(part, cache) for part in text.split(rows)])
    monkeypatch.setattr(target, "_scripted", [])
    cache = new_cache(target)

    plain = torch.cat([target.forward(part, cache) for part in text.split(rows)])

    assert torch.equal(scripted, plain)


@pytest.mark.parametrize("shape", ["e2b", "31b"])
def test_scripted_drafter_equals_the_plain_one(torch_pair_of: Callable, monkeypatch, shape) -> None:
    """Bit for bit, over several steps of a round."""
    pair = torch_pair_of(shape)
    cache, token = new_cache(pair.target), torch.tensor([5])
    hidden = pair.target.forward(ids(40, 2), cache)[-1:]
    assert pair.drafter._scripted
    context = pair.drafter.prepare(cache)
    first = pair.drafter.step(token, hidden, context)
    second = pair.drafter.step(token, first[1], context)
    monkeypatch.setattr(pair.drafter, "_scripted", [])

    plain = pair.drafter.step(token, hidden, context)

    assert torch.equal(first[0], plain[0])
    assert torch.equal(second[0], pair.drafter.step(token, plain[1], context)[0])


def test_experts_are_left_as_they_are(torch_pair_of: Callable) -> None:
    """A mixture of experts decides on the way what it runs, so nothing is compiled."""
    assert not torch_pair_of("26b").target._scripted


@pytest.mark.parametrize("counts", [(1, 1, 1), (4, 1, 5, 4), (9, 9, 9, 9, 9), (2, 20, 3)])
@pytest.mark.parametrize("scripted", [True, False])
def test_sequences_together_equal_each_alone(
    torch_pair_of: Callable, monkeypatch, counts, scripted
) -> None:
    """Matrices run once for all rows, each sequence over its own cache and at its own place."""
    target = torch_pair_of("31b").target  # widths of whole vectors, as published models have
    if not scripted:
        monkeypatch.setattr(target, "_scripted", [])
    texts = [ids(30 + 17 * index + count, index) for index, count in enumerate(counts)]
    caches, alone = [new_cache(target) for _ in texts], []
    for text, count, cache in zip(texts, counts, caches, strict=True):
        target.forward(text[:-count], cache)
        alone.append(target.forward(text[-count:], cache))
        cache.truncate(len(text) - count)

    news = [text[-count:] for text, count in zip(texts, counts, strict=True)]
    together = target.forward_many(news, caches)

    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
        if torch.backends.cpu.get_cpu_capability() == "AVX2":
            assert torch.equal(other, one)
    assert [cache.length for cache in caches] == [len(text) for text in texts]
