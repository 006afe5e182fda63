"""Rounds on fused operators write the very text that plain rounds write."""

from collections.abc import Callable
from itertools import cycle, islice

import pytest
import torch

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.propose import DraftKind
from gemmarunner.engine.round import Pair, run_round
from gemmarunner.engine.sampling import Sampler
from tests.unit.cuda.cuda_pairs import Pairs, begun, grown, sampler, text

GREEDY = {"temperature": 0.0}
SAMPLED = {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02}
LENGTH = 40
FAR = 180  # past the end of the sliding ring


@torch.inference_mode()
def plain_text(pair: Pairs, prompt: list[int], by: Sampler, length: int = LENGTH) -> list[int]:
    """`length` tokens of the plain decoder and the engine's plain rounds."""
    cache = KVCache(pair.plain.config, 256, 96, pair.plain.device, pair.plain.dtype)
    hidden = pair.plain.forward(torch.tensor(prompt), cache, keep=1)
    logits = pair.plain.logits(hidden)
    tokens = [*prompt, int(by.choose(logits, by.history(prompt), len(prompt)))]
    plain = Pair(pair.plain, pair.plain_drafter, DraftKind.COUPLED)
    while len(tokens) < length:
        new, hidden = run_round(plain, cache, by, tokens, hidden, 0)
        tokens += new
    return tokens[:length]


def own_text(
    pair: Pairs, prompt: list[int], by: Sampler, depth: int, length: int = LENGTH
) -> list[int]:
    """`length` tokens of the fused decoder alone in its slot."""
    backend = pair.backend(slots=1, max_depth=8)
    tokens = begun(backend, 0, prompt, by)
    while len(tokens) < length:
        [tokens] = grown(backend, [tokens], [by], [[depth]])
    return tokens[:length]


@pytest.mark.parametrize(
    "settings",
    [pytest.param(GREEDY, marks=pytest.mark.slow), SAMPLED],
    ids=["greedy", "sampled"],
)
def test_cuda_text_equals_the_plain_text(pair: Pairs, settings: dict[str, float]) -> None:
    """At depth 3, past the window, greedy and with a seed."""
    by, prompt = sampler(seed=3, **settings), text(20)

    assert own_text(pair, prompt, by, 3) == plain_text(pair, prompt, by)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("depth", range(9))
def test_cuda_depth_changes_no_word(pair_of: Callable, depth: int, settings: dict) -> None:
    """Every depth, the same long text."""
    pair, by, prompt = pair_of("e2b"), sampler(seed=4, **settings), text(20)

    assert own_text(pair, prompt, by, depth, FAR) == plain_text(pair, prompt, by, FAR)


@pytest.mark.parametrize("shape", ["e4b", pytest.param("26b", marks=pytest.mark.slow)])
def test_cuda_batches_change_no_word(pair_of: Callable, shape: str) -> None:
    """Three requests in four places, each at its own changing depth, greedy and sampled."""
    pair = pair_of(shape)
    by = [sampler(seed=seed, **kind) for seed, kind in ((1, GREEDY), (2, SAMPLED), (3, {}))]
    prompts = [text(count, count) for count in (5, 70, 20)]
    backend = pair.backend(slots=4)
    texts = [begun(backend, slot, prompts[slot], by[slot]) for slot in range(3)]
    depths = list(islice(cycle([[0, 2, 4], [4, 1, 0], [1, 3, 2]]), 18))

    found = grown(backend, texts, by, depths)

    for prompt, own, tokens in zip(prompts, by, found, strict=True):
        assert len(tokens) > len(prompt) + 18
        assert tokens == plain_text(pair, prompt, own, len(tokens))


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 0},
        {"repeat_penalty": 1.4, "repeat_last_n": -1},
        {"temperature": 0.0, "presence_penalty": 0.8},
    ],
    ids=["no top_k", "repetition", "greedy presence"],
)
def test_cuda_requests_beyond_the_graph_are_chosen_for(pair_of: Callable, settings) -> None:
    """What the device cannot choose is chosen on the host, beside requests that it can."""
    pair, prompt = pair_of("e4b"), text(20)
    by = [sampler(seed=5, **settings), sampler(seed=6)]
    backend = pair.backend(slots=2)
    texts = [begun(backend, slot, prompt, by[slot]) for slot in (0, 1)]

    found = grown(backend, texts, by, [[3, 3]] * 8)

    for own, tokens in zip(by, found, strict=True):
        assert tokens == plain_text(pair, prompt, own, len(tokens))


def test_cuda_suppressed_ids_never_appear(pair_of: Callable) -> None:
    """A request that suppresses other ids than the model goes by its own."""
    pair, prompt = pair_of("e4b"), text(20)
    free = own_text(pair, prompt, sampler(temperature=0.0), 2, 24)
    unwanted = tuple(set(free[20:24]))
    by = sampler(suppress=unwanted, temperature=0.0)

    assert own_text(pair, prompt, by, 2, 32) == plain_text(pair, prompt, by, 32)


@pytest.mark.slow
def test_cuda_invented_acceptance_keeps_its_shares(pair_of: Callable) -> None:
    """For benchmarks: draft i stays in that share of rounds, whatever the target says."""
    backend = pair_of("e4b").backend(slots=1, num_ctx=1024, synthetic=(0.8, 0.3))
    by = sampler(seed=7)
    texts, kept = [begun(backend, 0, text(20), by)], [0, 0, 0]
    for _ in range(150):
        before = len(texts[0])
        texts = grown(backend, texts, [by], [[2]])
        kept[len(texts[0]) - before - 1] += 1

    assert sum(kept) == 150
    assert abs((kept[1] + kept[2]) / 150 - 0.8) < 0.1
    assert abs(kept[2] / 150 - 0.3) < 0.12
