"""Processors equal transformers' own, ties included, and draws follow the distribution."""

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler, Stream, cut
from tests.fakes.engine_runs import p_value

VOCAB = 300


def oracle(logits: Tensor, sampling: Sampling, suppress: tuple[int, ...] = ()) -> Tensor:
    """Probabilities by transformers, without penalties."""
    steps = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if suppress:
        steps.insert(0, SuppressTokensLogitsProcessor(list(suppress)))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    return steps(torch.zeros(len(logits), 1, dtype=torch.int64), logits.clone()).softmax(-1)


def random_logits(rows: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


CUTS = [
    Sampling(temperature=1.0, top_k=64, top_p=0.95),
    Sampling(temperature=0.7, top_k=0, top_p=0.9),
    Sampling(temperature=1.7, top_k=5, top_p=1.0),
    Sampling(temperature=1.0, top_k=0, top_p=1.0),
    Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.1),
    Sampling(temperature=2.0, top_k=40, top_p=0.8, min_p=0.05),
    Sampling(temperature=1.0, top_k=10_000, top_p=0.5),
    Sampling(temperature=0.01, top_k=64, top_p=0.95),
    Sampling(temperature=1.0, top_k=64, top_p=0.0),
]


@pytest.mark.parametrize("sampling", CUTS, ids=repr)
def test_cuts_equal_transformers_on_random_rows(sampling: Sampling):
    """Same tokens kept, same probabilities."""
    logits = random_logits(200)
    ours = Sampler(sampling, vocab=VOCAB, suppress_ids=(3, 7)).kept(logits.clone(), None)

    torch.testing.assert_close(ours.dense(VOCAB), oracle(logits, sampling, (3, 7)))


@pytest.mark.parametrize("top_k", [1, 2, 5, 64])
def test_top_k_keeps_all_ties_with_the_last_as_transformers_does(top_k: int):
    """Rows of few distinct values, where nearly every cut falls into a tie."""
    sampling = Sampling(top_k=top_k, top_p=1.0)
    logits = random_logits(100).round()

    torch.testing.assert_close(cut(logits, sampling).dense(VOCAB), oracle(logits, sampling))


def test_top_p_keeps_all_ties_with_the_last_where_transformers_keeps_some():
    """transformers' sort breaks a tie by chance; otherwise the same tokens are kept."""
    sampling = Sampling(top_k=0, top_p=0.9)
    logits = random_logits(100).round()
    kept = cut(logits, sampling).dense(VOCAB) > 0
    theirs = oracle(logits, sampling) > 0
    last = logits.masked_fill(~theirs, torch.inf).amin(-1, keepdim=True)

    assert torch.equal(kept, logits >= last)


@pytest.mark.parametrize("sampling", CUTS, ids=repr)
def test_a_row_is_cut_alike_alone_and_among_others(sampling: Sampling):
    """Also where another row's tie widens the search."""
    logits = torch.cat((random_logits(20), random_logits(20).round()))
    together = cut(logits, sampling).dense(VOCAB)
    alone = torch.cat([cut(row[None], sampling).dense(VOCAB) for row in logits])

    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


def test_repetition_penalty_equals_transformers_over_the_window():
    """Each row sees the text before it, as far back as the window reaches."""
    text = torch.randint(0, VOCAB, (50,), generator=torch.Generator().manual_seed(1))
    logits = random_logits(4)
    sampler = Sampler(Sampling(temperature=0, repeat_penalty=1.3, repeat_last_n=20), vocab=VOCAB)
    ours = sampler.processed(logits.clone(), text[-23:])
    step = RepetitionPenaltyLogitsProcessor(1.3)
    rows = [step(text[None, 27 + i : 47 + i], logits[i : i + 1].clone()) for i in range(4)]

    torch.testing.assert_close(ours, torch.cat(rows))


@pytest.mark.parametrize(("window", "length"), [(8, 30), (8, 3), (-1, 30), (64, 10)])
def test_presence_and_frequency_count_tokens_of_the_window(window: int, length: int):
    """Against counting by hand, row by row, with a draft more in each row."""
    text = torch.randint(0, 6, (length,), generator=torch.Generator().manual_seed(2)).tolist()
    drafts = [1, 1, 5]
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25, repeat_last_n=window, top_k=0)
    sampler = Sampler(sampling, vocab=VOCAB)
    logits = random_logits(4)
    history = torch.cat((sampler.history(text), torch.tensor(drafts)))
    ours = sampler.processed(logits.clone(), history)
    for row in range(4):
        before = text + drafts[:row]
        recent = before if window < 0 else before[-window:]
        for token in range(VOCAB):
            logits[row, token] -= 0.25 * recent.count(token) + 0.5 * (token in recent)

    torch.testing.assert_close(ours, logits)


def test_penalties_of_a_draft_row_meet_the_columns_they_name():
    """A drafter that scores some tokens only is penalised as the whole row would be."""
    ids = torch.tensor([9, 4, 7, 250])
    sampler = Sampler(Sampling(repeat_penalty=2.0, presence_penalty=1.0), vocab=VOCAB)
    history = sampler.history([4, 250, 4])
    logits = random_logits(1)
    whole = sampler.processed(logits.clone(), history)

    torch.testing.assert_close(sampler.processed(logits[:, ids], history, ids), whole[:, ids])


@pytest.mark.parametrize("sampling", CUTS, ids=repr)
def test_draws_follow_the_distribution(sampling: Sampling):
    """20,000 draws at as many positions against the oracle's probabilities."""
    logits = random_logits(1) / 2
    sampler = Sampler(Sampling(**{**_fields(sampling), "seed": 11}), vocab=VOCAB)
    kept = cut(logits, sampling)
    many = type(kept)(
        None if kept.ids is None else kept.ids.expand(20_000, -1), kept.weights.expand(20_000, -1)
    )
    counts = torch.bincount(sampler.draw(many, 0, Stream.CHOICE), minlength=VOCAB)

    assert p_value(counts, oracle(logits, sampling)[0].double()) > 1e-4


@pytest.mark.parametrize("sampling", CUTS, ids=repr)
def test_a_guess_is_the_choice_of_the_same_row(sampling: Sampling):
    """A drafter that equals the target is right, by the short way and the long one.

    Only without top_k may it miss a choice: it looks at 64 tokens.
    """
    sampler = Sampler(Sampling(**{**_fields(sampling), "seed": 5}), vocab=VOCAB)
    logits = random_logits(100) * torch.linspace(0.3, 3, 100)[:, None]
    choices = [sampler.choose(row[None].clone(), None, i) for i, row in enumerate(logits)]
    guesses = [sampler.guess(row[None], None, None, i) for i, row in enumerate(logits)]
    same = int((torch.cat(choices) == torch.cat(guesses)).sum())

    assert same == 100 if 0 < sampling.top_k <= 64 else same > 90


def test_the_same_seed_chooses_the_same_and_another_seed_otherwise():
    """No seed is a fresh one each time."""
    logits = random_logits(50)

    def chosen(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(seed=seed), vocab=VOCAB)
        return sampler.choose(logits.clone(), None, 0).tolist()

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
    assert chosen(None) != chosen(None)


def _fields(sampling: Sampling) -> dict[str, object]:
    return {name: getattr(sampling, name) for name in Sampling.__dataclass_fields__}
