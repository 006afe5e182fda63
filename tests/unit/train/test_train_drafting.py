"""Drafts from many starts at once, and how accepted ones are counted."""

import pytest
import torch

from train.acceptance import DEPTH, Answered, figures, right_drafts
from train.attention import dense_masks, ropes
from train.drafter import DrafterSettings, DrafterTrainer, new_drafter
from train.drafting import draft_losses, first_hidden, free_drafts, read_rows, starts_at
from train.model import Drafter, Target
from train.ordering import balanced_ordering
from train.shapes import TINY, TINY_DRAFTER
from train.stream import Batch

Pair = tuple[Target, Drafter]


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A tiny random pair."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    target = Target(TINY).requires_grad_(False)
    drafter = Drafter(TINY_DRAFTER, TINY)
    new_drafter(drafter, target)
    return target, drafter


def test_drafts_from_many_starts_equal_drafts_from_each_prefix_alone(pair: Pair) -> None:
    """Neither other starts nor what follows a start in the row moves its drafts."""
    target, drafter = pair
    row = torch.randint(107, 8192, (1, 150))
    zeros, tables = torch.zeros_like(row), ropes(TINY, torch.arange(150))
    reading = read_rows(target, row, zeros, tables)
    places = torch.tensor([[3, 70, 140]])
    starts = starts_at(target, reading, zeros, places)
    together = free_drafts(target, drafter, reading, starts, 4)
    for index, place in enumerate(places[0].tolist()):
        cut = row[:, : place + 1]
        alone = read_rows(target, cut, torch.zeros_like(cut), ropes(TINY, torch.arange(place + 1)))
        one = starts_at(target, alone, torch.zeros_like(cut), torch.tensor([[place]]))

        assert torch.equal(
            together[:, index : index + 1], free_drafts(target, drafter, alone, one, 4)
        )


def test_first_hidden_is_the_row_that_produced_the_start(pair: Pair) -> None:
    """The state before the last committed token, after the final norm."""
    target, _ = pair
    row = torch.randint(107, 8192, (1, 64))
    zeros = torch.zeros_like(row)
    reading = read_rows(target, row, zeros, ropes(TINY, torch.arange(64)))
    starts = starts_at(target, reading, zeros, torch.tensor([[9]]))

    assert torch.equal(first_hidden(reading, starts)[0, 0], reading.decoded.hidden[0, 8])


def test_losses_are_least_for_the_teachers_own_distribution() -> None:
    """No divergence from itself, and the coarse loss is then the entropy of the masses."""
    torch.manual_seed(0)
    hidden, head = torch.randn(2, 3, 8), torch.randn(16, 8)
    membership = torch.eye(4).repeat_interleave(4, 0)
    divergence, coarse = draft_losses(
        hidden, head, torch.zeros(4, 8), hidden, head, membership, cap=1e6
    )

    torch.testing.assert_close(divergence, torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(coarse, torch.full((2, 3), torch.tensor(4.0).log().item()))


def test_clusters_are_of_equal_size_and_hold_every_token_once() -> None:
    """And tokens that are alike stand together."""
    torch.manual_seed(0)
    centres = torch.randn(4, 8) * 10
    which = torch.arange(64) % 4
    ordering = balanced_ordering(centres[which] + 0.1 * torch.randn(64, 8), clusters=4)

    assert sorted(ordering.tolist()) == list(range(64))
    assert all(len(set(group)) == 1 for group in which[ordering].view(4, 16).tolist())


def test_rounds_begin_only_before_tokens_of_a_model_turn(pair: Pair) -> None:
    """A draft past the turn's end, or from a start outside any turn, counts for nothing."""
    target, drafter = pair
    settings = DrafterSettings(1, 1, 8, 64, 1, torch.float32, compiled=False)
    weights = torch.zeros(1, 64)
    weights[0, 20:24] = 1.0
    batch = Batch(torch.randint(107, 8192, (1, 64)), torch.zeros(1, 64, dtype=torch.int32), weights)
    places, valid = DrafterTrainer(drafter, target, settings)._places(batch)
    counted = [
        sorted(p for p, v in zip(places[0].tolist(), row[0].tolist(), strict=True) if v)
        for row in valid
    ]

    assert counted == [[19, 20, 21, 22], [19, 20, 21], [19, 20], [19], [], []]


def test_accepted_drafts_are_the_free_drafts_that_come_true(pair: Pair) -> None:
    """An answer made of the drafter's own drafts is accepted from its first token to its end."""
    target, drafter = pair
    prompt = tuple(torch.randint(107, 8192, (40,)).tolist())
    first = torch.tensor([[*prompt, 300]])
    zeros = torch.zeros_like(first)
    reading = read_rows(target, first, zeros, ropes(TINY, torch.arange(41)))
    starts = starts_at(target, reading, zeros, torch.tensor([[40]]))
    drafts = free_drafts(target, drafter, reading, starts, DEPTH)[0, 0].tolist()
    wrong = [*drafts[:2], (drafts[2] + 1) % 8192, *drafts[3:]]
    texts = [Answered(prompt, (300, *drafts[:4])), Answered(prompt, (300, *wrong))]
    runs = right_drafts(target, drafter, texts)

    assert (runs[0][0], runs[1][0]) == (4, 2)
    assert runs[0][-1] == 0


def test_figures_count_rounds_as_a_runtime_plays_them() -> None:
    """Six right drafts, then one of two; no draft past the end of the answer is counted."""
    row = [6, 0, 0, 0, 0, 0, 0, 1, 0, 0]  # ten tokens: nine to emit after the first
    found = figures([row])

    assert found["conditional"] == [1.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert found["cumulative"][1] == 0.5
    assert found["tokens_per_round"]["6"] == 4.5
    assert found["tokens_per_round"]["1"] == pytest.approx(9 / 7, abs=1e-3)


def test_dense_masks_see_no_padding_document(pair: Pair) -> None:
    """The acceptance batch marks padding as a document of its own."""
    masks = dense_masks(torch.tensor([[0, 0, 1, 1]]), 64)

    assert masks.full[0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]
