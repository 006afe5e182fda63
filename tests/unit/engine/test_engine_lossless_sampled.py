"""Sampled text with a drafter has the distribution of the target alone, and often is its text."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gemmarunner.engine import round as round_module
from gemmarunner.engine.accept import choose_by_ratio
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.propose import DraftKind, Proposal
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Kept, Sampler
from tests.fakes.engine_runs import NO_EOS, ask, chance_of_texts, eager_engine, p_value, tiny_pair
from tests.fakes.table_models import TableDrafter, TableTarget, random_table

VOCAB = 5
PROMPT = [1, 2]
TABLE = random_table(VOCAB, 1.0)
DRAFTERS = {
    "equal": TABLE,
    "unrelated": random_table(VOCAB, 1.0, seed=8),
    "adversarial": -2 * TABLE,
}
SAMPLINGS = {
    "temperature": Sampling(temperature=0.8, top_k=0, top_p=1.0),
    "cuts": Sampling(temperature=1.3, top_k=4, top_p=0.95, min_p=0.03),
    "penalties": Sampling(
        temperature=1.0,
        top_k=0,
        top_p=0.97,
        repeat_penalty=1.4,
        presence_penalty=0.3,
        frequency_penalty=0.2,
    ),
}


def processed(logits: Tensor, text: list[int], sampling: Sampling) -> Tensor:
    """The target's next-token distribution, by transformers' processors and counting."""
    steps = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    steps += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    steps += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    steps += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    ids = torch.tensor([text])
    row = RepetitionPenaltyLogitsProcessor(sampling.repeat_penalty)(ids, logits[None].clone())
    for token in set(text):
        row[0, token] -= sampling.frequency_penalty * text.count(token)
        row[0, token] -= sampling.presence_penalty
    return steps(ids, row)[0].double().softmax(-1)


def table_chances(sampling: Sampling) -> Tensor:
    """The exact chance of every first three tokens."""
    target = TableTarget(TABLE)
    return chance_of_texts(
        lambda text: processed(TABLE[target.state(text)], text, sampling), PROMPT, VOCAB, 3
    )


def count_texts(engine: Engine, sampling: Sampling, draws: int, vocab: int) -> Tensor:
    """How often each text of three tokens came; the second and third are drafted at depth 2."""
    counts = torch.zeros((vocab,) * 3)
    fields = {name: getattr(sampling, name) for name in Sampling.__dataclass_fields__}
    for seed in range(draws):
        one = Sampling(**{**fields, "seed": seed})
        counts[tuple(ask(engine, PROMPT, one, 2, 4).tokens[:3])] += 1
    return counts.flatten()


def table_engine(drafter: str, kind: DraftKind) -> Engine:
    return eager_engine(
        TableTarget(TABLE),
        TableDrafter(DRAFTERS[drafter]),
        num_ctx=16,
        eos_ids=NO_EOS,
        kind=kind,
    )


@pytest.mark.parametrize(
    ("kind", "drafter", "sampling"),
    [
        (DraftKind.ARGMAX, "unrelated", "cuts"),
        (DraftKind.SAMPLED, "unrelated", "temperature"),
        (DraftKind.COUPLED, "adversarial", "penalties"),
    ],
)
def test_first_three_tokens_have_the_targets_distribution(
    kind: DraftKind, drafter: str, sampling: str
):
    """400 texts against the exact chances; the slow twin below draws 20,000."""
    options = SAMPLINGS[sampling]
    counts = count_texts(table_engine(drafter, kind), options, 400, VOCAB)

    assert p_value(counts, table_chances(options)) > 1e-4


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("kind", DraftKind)
def test_20000_texts_have_the_targets_distribution(kind: DraftKind, drafter: str):
    """Every kind of draft, with a drafter equal to, unrelated to and against the target.

    A Latin square: each kind and each drafter meets each way of sampling once.
    """
    turn = list(DraftKind).index(kind) + list(DRAFTERS).index(drafter)
    options = list(SAMPLINGS.values())[turn % len(SAMPLINGS)]
    counts = count_texts(table_engine(drafter, kind), options, 20_000, VOCAB)

    assert p_value(counts, table_chances(options)) > 1e-4


def _trusts_argmax_drafts(
    sampler: Sampler, logits: Tensor, proposal: Proposal, history: Tensor | None, position: int
) -> Tensor:
    """Takes an argmax draft for one drawn from the drafter's softmax, as transformers does."""
    if not proposal.tokens:
        return sampler.choose(logits, history, position)
    softmax = Kept(None, DRAFTERS["unrelated"][:1].softmax(-1))
    pretended = Proposal(proposal.tokens, (softmax,) * len(proposal.tokens))
    return choose_by_ratio(sampler, sampler.kept(logits, history), pretended, position)


def _accepts_the_likely(
    sampler: Sampler, logits: Tensor, proposal: Proposal, history: Tensor | None, position: int
) -> Tensor:
    """Keeps every draft the target gives a tenth, as lossy modes do."""
    kept = sampler.kept(logits, history)
    chosen = sampler.choose(logits, history, position)
    for row, token in enumerate(proposal.tokens):
        if float(kept.dense(VOCAB)[row, token]) > 0.1:
            chosen[row] = token[0]
    return chosen


@pytest.mark.parametrize("rule", [_trusts_argmax_drafts, _accepts_the_likely])
def test_a_wrong_rule_is_found_out(rule: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch):
    """The test above can fail: known wrong rules do, with as few texts."""
    monkeypatch.setattr(round_module, "choose", rule)
    options = SAMPLINGS["temperature"]
    counts = count_texts(table_engine("unrelated", DraftKind.ARGMAX), options, 400, VOCAB)

    assert p_value(counts, table_chances(options)) < 1e-4


@pytest.mark.parametrize("kind", [DraftKind.ARGMAX, DraftKind.COUPLED])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_seed_gives_the_text_of_plain_decoding(kind: DraftKind, drafter: str, sampling: str):
    """Token for token, at every depth: what was drafted leaves no trace in the text."""
    fields = {name: getattr(SAMPLINGS[sampling], name) for name in Sampling.__dataclass_fields__}
    engine = eager_engine(
        TableTarget(TABLE),
        TableDrafter(DRAFTERS[drafter]),
        num_ctx=99,
        eos_ids=NO_EOS,
        kind=kind,
    )
    options = Sampling(**{**fields, "seed": 3})
    expected = ask(engine, PROMPT, options, "off", 30).tokens

    for depth in (1, 3, 8, "auto"):
        assert ask(engine, PROMPT, options, depth, 30).tokens == expected


def test_a_seeded_text_of_a_tiny_pair_is_that_of_plain_decoding(tmp_path):
    """A real decoder, Gemma's default sampling, past the window."""
    target, drafter = tiny_pair("e2b", tmp_path, torch.float32)
    engine = eager_engine(target, drafter, num_ctx=128, eos_ids=NO_EOS, max_rows=16)
    for seed, depth in enumerate((2, 7)):
        options = Sampling(seed=seed)
        expected = ask(engine, [5, 6, seed], options, "off", 20).tokens

        assert ask(engine, [5, 6, seed], options, depth, 20).tokens == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", DraftKind)
def test_4000_texts_of_a_tiny_pair_have_the_targets_distribution(kind: DraftKind, tmp_path):
    """The decoder's own logits, seven tokens allowed, the pair's own drafter."""
    target, drafter = tiny_pair("e2b", tmp_path, torch.float32)
    shut = tuple(range(7, 128))
    options = Sampling(temperature=3.0, top_k=6, top_p=0.98)
    engine = eager_engine(target, drafter, num_ctx=32, suppress_ids=shut, kind=kind)

    def distribution(text: list[int]) -> Tensor:
        cache = KVCache(target.config, 32, 32, "cpu", torch.float32)
        logits = target.logits(target.forward(torch.tensor(text), cache, keep=1))[0]
        return processed(logits[:7], text, options)

    chances = chance_of_texts(distribution, PROMPT, 7, 3)

    assert p_value(count_texts(engine, options, 4_000, 7), chances) > 1e-4
