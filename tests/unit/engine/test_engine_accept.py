"""Acceptance keeps the target's distribution, whatever the drafter's."""

import pytest
import torch
from torch import Tensor

from gemmarunner.engine.accept import agreed, choose_by_ratio
from gemmarunner.engine.propose import Proposal
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Kept, Sampler, Stream
from tests.fakes.engine_runs import p_value

DRAWS = 20_000
P = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])
DRAFTERS = {
    "equal": P,
    "near": torch.tensor([0.35, 0.3, 0.2, 0.1, 0.05]),
    "unrelated": torch.tensor([0.05, 0.1, 0.15, 0.5, 0.2]),
    "always wrong": torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]),
    "sure": torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]),
}


def rows(chances: Tensor, count: int) -> Kept:
    return Kept(None, chances.expand(count, -1))


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_ratio_acceptance_gives_the_targets_distribution(drafter: str):
    """Each of 20,000 rows chooses by p, and a draft stays as often as the sum of min(p, q)."""
    q = DRAFTERS[drafter]
    sampler = Sampler(Sampling(seed=3), vocab=5)
    drafts = sampler.draw(rows(q, DRAWS), 0, Stream.DRAFT)
    proposal = Proposal((drafts,), (rows(q, DRAWS),))
    chosen = choose_by_ratio(sampler, rows(P, DRAWS + 1), proposal, 0)[:-1]
    stayed = float((chosen == drafts).double().mean())

    assert p_value(torch.bincount(chosen, minlength=5), P.double()) > 1e-4
    assert stayed == pytest.approx(float(torch.minimum(P, q).sum()), abs=0.015)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_coupled_drafts_stay_as_often_as_promised(drafter: str):
    """At least (1 - d) / (1 + d) of them, d the total variation of p and q; all when p is q."""
    q = DRAFTERS[drafter]
    sampler = Sampler(Sampling(seed=4), vocab=5)
    drafts = sampler.draw(rows(q, DRAWS), 0, Stream.CHOICE)
    chosen = sampler.draw(rows(P, DRAWS), 0, Stream.CHOICE)
    stayed = float((chosen == drafts).double().mean())
    apart = float((P - q).abs().sum() / 2)

    assert stayed >= (1 - apart) / (1 + apart) - 0.015
    assert stayed <= 1 - apart + 0.015


@pytest.mark.parametrize(
    ("drafts", "chosen", "text"),
    [
        ([], [4], [4]),
        ([1, 2, 3], [1, 2, 3, 9], [1, 2, 3, 9]),
        ([1, 2, 3], [1, 5, 3, 9], [1, 5]),
        ([1, 2, 3], [7, 2, 3, 9], [7]),
    ],
)
def test_text_grows_by_the_agreed_drafts_and_one_token(
    drafts: list[int], chosen: list[int], text: list[int]
):
    """What comes after the first disagreement does not count."""
    assert agreed(drafts, chosen) == text
