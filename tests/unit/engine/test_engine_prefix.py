"""Kept prompts save reading, stay within their budget, and never change a text."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.prefix import MIN_TOKENS, PrefixCache
from gemmarunner.engine.slot import common_length
from tests.fakes.engine_runs import ask, eager_engine, tiny_pair
from tests.fakes.table_models import TableDrafter, TableShape, TableTarget, random_table
from tests.fakes.tiny_models import VOCAB as TINY_VOCAB

TABLE = random_table(12)
LONG = [1 + i % 9 for i in range(100)]
OTHER = [2 + i % 7 for i in range(110)]


class FakeSnapshot(NamedTuple):
    """So many bytes."""

    nbytes: int
    length: int


def anywhere(length: int) -> bool:
    """A snapshot that can be cut back to any length."""
    return True


def put(cache: PrefixCache, text: list[int], nbytes: int = 10) -> None:
    assert cache.wants(text, nbytes)
    cache.put(text, FakeSnapshot(nbytes, len(text)), anywhere)


def saved(cache: PrefixCache, prompt: list[int]) -> int:
    found = cache.find(prompt)
    return 0 if found is None else found.tokens


def test_longest_common_start_is_found_and_never_the_whole_prompt():
    """The last row of a prompt must run."""
    cache = PrefixCache(100)
    put(cache, LONG)
    put(cache, OTHER)

    assert saved(cache, [*LONG, 5]) == 100
    assert saved(cache, LONG) == 99
    assert saved(cache, [*OTHER[:80], 11, 11]) == 80
    assert saved(cache, [11]) == 0


def test_snapshot_that_cannot_be_cut_is_used_whole_or_not_at_all():
    """The sliding layers have left what lies further back than forty tokens."""
    cache = PrefixCache(100)
    assert cache.wants(LONG, 1)
    cache.put(LONG, FakeSnapshot(1, 100), lambda n: n >= 60)

    assert saved(cache, [*LONG[:60], 11]) == 60
    assert saved(cache, [*LONG[:59], 11]) == 0


def test_least_recently_used_leaves_first_and_a_longer_turn_replaces_the_shorter():
    """Budget for two."""
    cache = PrefixCache(20)
    put(cache, LONG)
    put(cache, OTHER)
    assert saved(cache, [*LONG, 5]) == 100
    put(cache, [*LONG, 5, 6])
    assert cache.nbytes == 20
    put(cache, [3] * 70)

    assert saved(cache, [*OTHER, 1]) == 0
    assert saved(cache, [*LONG, 5, 6, 7]) == 102


def test_what_is_too_short_too_big_or_kept_already_is_not_wanted():
    """Nor is anything when the budget is nothing."""
    cache = PrefixCache(20)
    put(cache, LONG)

    assert not cache.wants([1] * (MIN_TOKENS - 1), 1)
    assert not cache.wants(OTHER, 21)
    assert not cache.wants(LONG, 1)
    assert not PrefixCache(0).wants(LONG, 0)


def test_reclaim_frees_the_oldest_and_says_how_much():
    """At least what was asked for, if there is so much."""
    cache = PrefixCache(100)
    put(cache, LONG, 30)
    put(cache, OTHER, 40)

    assert cache.reclaim(1) == 30
    assert cache.reclaim(1000) == 40
    assert cache.reclaim(1) == cache.nbytes == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2500), st.integers(0, 40), st.integers(0, 40))
def test_common_length_equals_comparing_one_by_one(same: int, more: int, others: int):
    """Across blocks, and where one text ends."""
    one = [i % 7 for i in range(same)] + [1] * more
    other = [i % 7 for i in range(same)] + [2] * others

    assert common_length(one, other) == same


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=40), st.integers(0, 15))
def test_restored_cache_goes_on_as_the_one_it_was_taken_of(chunks: list[int], cut: int):
    """Whatever moved in either before; the fake target checks what it reads."""
    target = TableTarget(TABLE, window=24)
    first, second = (
        KVCache(TableShape(12, window=24), 700, 16, "cpu", torch.float32) for _ in range(2)
    )
    for index, rows in enumerate(chunks):
        target.forward(torch.full((rows,), index % 12), first)
    first.truncate(first.length - min(cut, chunks[-1] - 1))
    for _ in range(10):
        target.forward(torch.full((16,), 3), second)
    second.restore(first.snapshot())

    assert (second.length, second.sliding_base) == (first.length, first.sliding_base)
    for layer in (0, 1):
        for ours, theirs in zip(first.committed(layer), second.committed(layer), strict=True):
            assert torch.equal(ours, theirs)


def test_conversations_in_turn_find_their_prompts_in_one_slot():
    """Three of them; each turn reads what is new since its last prompt, and says the same."""
    target = TableTarget(TABLE, window=16)
    warm = eager_engine(target, TableDrafter(TABLE), num_ctx=400, max_rows=64, prefix_bytes=10**6)
    plain = eager_engine(TableTarget(TABLE), None, num_ctx=400, prefix_bytes=0)
    texts = {start: [start] * 80 for start in (1, 2, 3)}
    known = dict.fromkeys(texts, 0)
    for _ in range(3):
        for start, text in texts.items():
            target.rows_run.clear()
            answer = ask(warm, text, max_tokens=12, draft=3).tokens
            assert answer == ask(plain, text, max_tokens=12).tokens
            assert target.rows_run[0] == min(64, len(text) - known[start])
        known = {start: len(text) for start, text in texts.items()}
        texts = {start: [*text, 7, start, 8] for start, text in texts.items()}


def test_answers_of_a_tiny_pair_are_the_same_with_kept_prompts(tmp_path):
    """A real decoder, past its window, prompts that branch off and come back."""
    target, drafter = tiny_pair("e2b", tmp_path, torch.float32)
    warm = eager_engine(target, drafter, num_ctx=256, max_rows=32, prefix_bytes=10**9)
    plain = eager_engine(target, None, num_ctx=256, max_rows=32, prefix_bytes=0)
    first = [(7 * i) % TINY_VOCAB for i in range(90)]
    second = [(5 * i) % TINY_VOCAB for i in range(120)]
    for prompt in (first, second, [*first, 3, 4], [*second[:119], 9], first, second):
        expected = ask(plain, prompt, max_tokens=12).tokens

        assert ask(warm, prompt, max_tokens=12).tokens == expected
    assert warm.prefix_bytes > 0


def test_reclaim_of_an_engine_costs_time_alone():
    """All kept prompts go, and the next turn says what it would have said."""
    engine = eager_engine(TableTarget(TABLE), None, num_ctx=200)
    text = [*LONG, *ask(engine, LONG, max_tokens=5).tokens, 4]
    kept = engine.prefix_bytes

    assert kept > 0
    assert engine.reclaim(1) == kept
    assert engine.prefix_bytes == 0
    fresh = eager_engine(TableTarget(TABLE), None, num_ctx=200)
    assert ask(engine, text, max_tokens=5).tokens == ask(fresh, text, max_tokens=5).tokens


def test_lack_of_memory_for_a_snapshot_harms_no_request(monkeypatch: pytest.MonkeyPatch):
    """Kept prompts are dropped, the answer comes."""
    engine = eager_engine(TableTarget(TABLE), None, num_ctx=200)
    ask(engine, OTHER, max_tokens=2)

    def fail(cache: KVCache) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(KVCache, "snapshot", fail)

    assert len(ask(engine, LONG, max_tokens=5).tokens) == 5
    assert engine.prefix_bytes == 0
