"""Greedy text with a drafter is the text without, token for token."""

import random

import pytest
import torch

from gemmarunner.engine.engine import Engine
from gemmarunner.engine.ports import Drafter, Target
from gemmarunner.engine.request import Sampling
from tests.fakes.engine_runs import GREEDY, NO_EOS, ask, eager_engine, tiny_pair
from tests.fakes.table_models import ScriptDrafter, TableDrafter, TableTarget, random_table
from tests.fakes.tiny_models import VOCAB

PENALISED = Sampling(temperature=0, repeat_penalty=1.3, presence_penalty=0.4, repeat_last_n=8)


def engine(target: Target, drafter: Drafter | None) -> Engine:
    """Chunks and context so small that prompts are read in pieces and sliding rings move."""
    return eager_engine(target, drafter, num_ctx=160, eos_ids=NO_EOS, max_rows=12)


def random_prompts(count: int, vocab: int, longest: int) -> list[list[int]]:
    chance = random.Random(0)
    return [
        [chance.randrange(vocab) for _ in range(chance.randint(1, longest))] for _ in range(count)
    ]


@pytest.fixture(scope="module", params=["e2b", "12b"])  # with and without the centroid head
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return tiny_pair(request.param, tmp_path_factory.mktemp("pair"), torch.float32)


@pytest.fixture(scope="module", params=["e2b", "e4b", "12b", "26b", "31b"])
def any_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return tiny_pair(request.param, tmp_path_factory.mktemp("pair"), torch.float32)


@pytest.mark.parametrize(
    ("likeness", "sampling"), [(0.0, GREEDY), (0.5, PENALISED), (0.5, GREEDY), (1.0, GREEDY)]
)
def test_40_texts_of_a_table_are_the_same_at_every_depth(likeness: float, sampling: Sampling):
    """A drafter that is unrelated to, like, or equal to the target; depths 1 to 8 in turn."""
    table = random_table(12)
    drafter = TableDrafter(likeness * table + (1 - likeness) * random_table(12, seed=9))
    plain, drafting = engine(TableTarget(table), None), engine(TableTarget(table), drafter)
    for index, prompt in enumerate(random_prompts(40, 12, longest=6)):
        expected = ask(plain, prompt, sampling, "off", 16).tokens

        assert ask(drafting, prompt, sampling, 1 + index % 8, 16).tokens == expected
    assert drafter.steps > 40


def test_texts_of_tiny_pairs_are_the_same_with_their_own_drafter(pair: tuple[Target, Drafter]):
    """Far past the window, over chunks: the sliding rings move while drafts are rejected."""
    plain, drafting = engine(pair[0], None), engine(*pair)
    for depth, prompt in zip((3, 8), random_prompts(2, VOCAB, longest=40), strict=True):
        expected = ask(plain, prompt, GREEDY, "off", 32).tokens

        assert ask(drafting, prompt, GREEDY, depth, 32).tokens == expected


@pytest.mark.parametrize("right", [0.0, 0.6, 1.0])
def test_texts_of_tiny_pairs_are_the_same_at_any_acceptance(
    pair: tuple[Target, Drafter], right: float
):
    """A drafter that is right now and then, or never, or always."""
    plain = engine(pair[0], None)
    for depth, prompt in zip((3, 7), random_prompts(2, VOCAB, longest=30), strict=True):
        expected = ask(plain, prompt, GREEDY, "off", 32)
        script = ScriptDrafter([*prompt, *expected.tokens], VOCAB, right, seed=depth)
        answer = ask(engine(pair[0], script), prompt, GREEDY, depth, 32)

        assert answer.tokens == expected.tokens
        if right in (0.0, 1.0):
            assert set(answer.finished.draft.per_position) == {right}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_100_texts_of_every_shape_are_the_same(any_pair: tuple[Target, Drafter]):
    """500 in all: own drafter, all depths, penalties in every fourth text."""
    plain, drafting = engine(any_pair[0], None), engine(*any_pair)
    for index, prompt in enumerate(random_prompts(100, VOCAB, longest=60)):
        sampling = PENALISED if index % 4 == 3 else GREEDY
        expected = ask(plain, prompt, sampling, "off", 48).tokens

        assert ask(drafting, prompt, sampling, 1 + index % 8, 48).tokens == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("right", [0.0, 0.2, 0.5, 0.9])
def test_25_texts_are_the_same_at_forced_acceptance(any_pair: tuple[Target, Drafter], right: float):
    """500 in all: mixtures of right and wrong drafts, at all depths and at those chosen."""
    plain = engine(any_pair[0], None)
    for index, prompt in enumerate(random_prompts(25, VOCAB, longest=60)):
        expected = ask(plain, prompt, GREEDY, "off", 48).tokens
        script = ScriptDrafter([*prompt, *expected], VOCAB, right, seed=index)
        depth = "auto" if index % 9 == 8 else 1 + index % 9

        assert ask(engine(any_pair[0], script), prompt, GREEDY, depth, 48).tokens == expected
