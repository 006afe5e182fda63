"""Cached, left-padded, batched continuation says what plain reading says."""

import pytest
import torch

from train.attention import dense_masks, ropes
from train.generate import Generator, Prompt, sample_tokens
from train.model import Target
from train.shapes import STOP_IDS, TINY


@pytest.fixture(scope="module")
def target() -> Target:
    """A tiny random target."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Target(TINY).requires_grad_(False)


def plainly(target: Target, prompt: tuple[int, ...], most: int) -> list[int]:
    """Continue greedily by reading everything anew for each token."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < most and not (
        len(tokens) > len(prompt) and tokens[-1] in STOP_IDS
    ):
        row = torch.tensor([tokens])
        masks = dense_masks(torch.zeros_like(row), TINY.window)
        read = target.model(row, ropes(TINY, torch.arange(len(tokens))), masks, torch.float32)
        tokens.append(int(target.logits(read.hidden[:, -1]).argmax()))
    return tokens[len(prompt) :]


def test_batched_continuation_equals_reading_anew(target: Target) -> None:
    """Prompts of different lengths, some past the window, in one padded batch."""
    rng = torch.Generator().manual_seed(1)
    lengths = (3, 70, 129, 40)
    prompts = [tuple(torch.randint(107, 8192, (n,), generator=rng).tolist()) for n in lengths]
    generator = Generator(target, torch.float32, batch=3, seed=0)
    answers = generator.continue_all([Prompt(p, sampled=False) for p in prompts], 12)

    assert answers == [plainly(target, p, 12) for p in prompts]


def test_greedy_rows_are_not_moved_by_sampled_ones(target: Target) -> None:
    """A batch may mix both ways of choosing."""
    prompt = tuple(range(200, 230))
    asked = [Prompt(prompt, sampled=True), Prompt(prompt, sampled=False)] * 2
    answers = Generator(target, torch.float32, batch=4, seed=0).continue_all(asked, 8)

    assert answers[1] == answers[3] == plainly(target, prompt, 8)
    assert answers[0] != answers[2]


def test_no_batch_begins_once_there_is_enough(target: Target) -> None:
    """What was not reached stays empty."""
    asked = [Prompt((5, 200), sampled=False)] * 4
    done = iter((False, True))
    answers = Generator(target, torch.float32, 2, 0).continue_all(asked, 2, lambda: next(done))

    assert sorted(map(bool, answers)) == [False, False, True, True]


def test_sampling_keeps_to_the_likeliest_tokens() -> None:
    """Only the fewest tokens that make up 95% are drawn, in their proportions."""
    shares = torch.tensor([0.6, 0.3, 0.06, 0.04])
    logits = shares.log().repeat(20_000, 1)
    drawn = sample_tokens(logits, torch.Generator().manual_seed(0))
    found = drawn.bincount(minlength=4) / len(drawn)

    torch.testing.assert_close(found, shares * torch.tensor([1, 1, 1, 0]) / 0.96, atol=0.01, rtol=0)
