"""The built-in pair says with its drafter what it says without, token for token."""

from collections.abc import Iterable

import pytest
import torch

from gemmarunner.engine.engine import Engine
from gemmarunner.engine.request import DraftMode, Sampling
from tests.fakes.engine_runs import GREEDY, ask
from tests.fakes.nano import nano_engine, nano_prompts


@pytest.fixture(scope="module")
def engine() -> Engine:
    """nano on one thread, so that the machine's other work disturbs it less."""
    torch.set_num_threads(1)
    return nano_engine()


def assert_same(
    engine: Engine,
    prompts: Iterable[list[int]],
    sampling: Sampling,
    modes: tuple[DraftMode, ...],
    longest: int,
) -> None:
    """Each mode continues each prompt as the target alone does, and something was drafted."""
    drafted = 0
    for prompt in prompts:
        expected = ask(engine, prompt, sampling, "off", longest).tokens
        for mode in modes:
            answer = ask(engine, prompt, sampling, mode, longest)
            drafted += answer.finished.draft.drafted

            assert answer.tokens == expected
    assert drafted > 0


@pytest.mark.timeout(180)
def test_40_greedy_texts_are_the_same(engine: Engine):
    """Of every skill, half at depth 4, half as the controller chooses."""
    prompts = nano_prompts(40)

    assert_same(engine, prompts[::2], GREEDY, (4,), 16)
    assert_same(engine, prompts[1::2], GREEDY, ("auto",), 16)


@pytest.mark.timeout(180)
def test_seeded_texts_are_the_same(engine: Engine):
    """Gemma's own sampling; a seed gives one text, however it was drafted."""
    for seed, prompt in enumerate(nano_prompts(8)):
        assert_same(engine, [prompt], Sampling(seed=seed), (4, "auto"), 16)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_200_greedy_texts_are_the_same(engine: Engine):
    """Long answers, at depth 4 and as the controller chooses."""
    assert_same(engine, nano_prompts(200), GREEDY, (4, "auto"), 80)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_48_seeded_texts_are_the_same(engine: Engine):
    """Gemma's own sampling, and with penalties."""
    for seed, prompt in enumerate(nano_prompts(48)):
        penalty = 1.2 if seed % 3 == 2 else 1.0
        sampling = Sampling(seed=seed, repeat_penalty=penalty)

        assert_same(engine, [prompt], sampling, (4, "auto"), 60)
