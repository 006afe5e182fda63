"""Rounds begun behind one in flight, before its tokens are known: the same words, none twice."""

from collections.abc import Callable
from itertools import cycle, islice

import pytest
import torch
from torch import Tensor

from gemmarunner.cuda import round as rounds
from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineRequest, Finished
from gemmarunner.engine.ports import Pending, RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from tests.fakes.engine_runs import GREEDY, NO_EOS, answer_of, ask
from tests.unit.cuda.cuda_pairs import begun, grown, sampler, text

SAMPLED = Sampling(seed=5, temperature=0.8)
FAR = 200  # past the end of the sliding ring


class Counting(CudaBackend):
    """Counts rounds begun behind others; `alone` begins none so."""

    followed = 0
    alone = False

    def follow(self, plans: list[RoundPlan]) -> Pending | None:
        """As the backend does, counted."""
        pending = None if self.alone else super().follow(plans)
        self.followed += pending is not None
        return pending


@pytest.fixture
def backend_of(pair_of: Callable) -> Callable[..., Counting]:
    """A counting backend of a shape's pair."""

    def build(shape: str = "e4b", **wanted: int) -> Counting:
        pair = pair_of(shape)
        settings = {"num_ctx": 256, "slots": 3, "max_depth": 4, "max_rows": 64} | wanted
        return Counting(pair.target, pair.drafter, **settings)

    return build


def planned(texts: list[list[int]], by: list[Sampler], depths: list[int]) -> list[RoundPlan]:
    """A round of all texts."""
    return [RoundPlan(slot, *rest) for slot, rest in enumerate(zip(texts, by, depths, strict=True))]


def chained(
    backend: CudaBackend, texts: list[list[int]], by: list[Sampler], depths: list[list[int]]
) -> list[list[int]]:
    """The texts after a round for each entry of `depths`, all but the first begun too early."""
    pending: Pending | None = backend.launch(planned(texts, by, depths[0]))
    for wanted in [*depths[1:], None]:
        behind = None if wanted is None else backend.follow(planned(texts, by, wanted))
        assert pending is not None
        for tokens, new in zip(texts, pending.wait().tokens, strict=True):
            tokens += new
        pending = behind
    return texts


@pytest.mark.parametrize(
    "shape", ["e4b", *(pytest.param(shape, marks=pytest.mark.slow) for shape in ("12b", "26b"))]
)
def test_cuda_rounds_behind_others_change_no_word(backend_of: Callable, shape: str) -> None:
    """Greedy, sampled and with a bent choice of depths, at changing depths, past the window."""
    by = [
        sampler(temperature=0.0),
        sampler(seed=2, temperature=1.3, top_k=40),
        sampler(seed=3, repeat_penalty=1.2, presence_penalty=0.3, repeat_last_n=30),
    ]
    depths = list(islice(cycle([[0, 2, 4], [0, 2, 4], [4, 1, 0], [0, 0, 0], [1, 3, 2]]), 25))
    plain, early = backend_of(shape, slots=4), backend_of(shape, slots=4)
    expected, found = (
        [
            begun(backend, slot, text(count, count), by[slot])
            for slot, count in enumerate((5, 70, 20))
        ]
        for backend in (plain, early)
    )

    assert chained(early, found, by, depths) == grown(plain, expected, by, depths)
    assert early.followed == len(depths) - 1
    assert [early.length(slot) for slot in range(3)] == [plain.length(slot) for slot in range(3)]


def test_cuda_only_the_sequences_in_flight_are_followed(backend_of: Callable) -> None:
    """Not others, not fewer, nor one whose slot was given up; the flight lands all the same."""
    backend, by = backend_of(), [sampler(temperature=0.0), sampler(seed=1)]
    texts = [begun(backend, slot, text(9), by[slot]) for slot in (0, 1)]
    plans = planned(texts, by, [2, 2])
    pending = backend.launch(plans)

    assert backend.follow(plans[:1]) is None
    assert backend.follow(planned(texts, [by[0], sampler(seed=1)], [2, 2])) is None
    backend.truncate(1, 0)
    assert backend.follow(plans) is None

    new = pending.wait().tokens
    assert new[0]
    assert not new[1]
    assert (backend.length(0), backend.length(1)) == (8 + len(new[0]) + 1, 0)


def test_cuda_choices_of_the_host_are_not_followed(backend_of: Callable) -> None:
    """A penalty of the whole text needs its tokens on the host before the next choice."""
    backend, by = backend_of(), sampler(repeat_penalty=1.3, repeat_last_n=-1, seed=1)
    plans = planned([begun(backend, 0, text(9), by)], [by], [2])
    backend.launch(plans)

    assert backend.follow(plans) is None


def test_cuda_end_of_a_slot_is_not_passed(backend_of: Callable) -> None:
    """Near the end of the context rounds wait for one another."""
    backend, by = backend_of(num_ctx=64, slots=1), sampler(temperature=0.0)
    tokens = begun(backend, 0, text(60), by)
    backend.launch(planned([tokens], [by], [4])).wait()
    engine = Engine(backend_of(num_ctx=64, slots=1), eos_ids=NO_EOS)

    assert len(ask(engine, text(20), SAMPLED, 4, 1000).tokens) == 44


def test_cuda_overflow_costs_two_rounds_and_no_word(
    backend_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the graph could not choose, the round and the one behind bring nothing."""
    real, calls = rounds.choose, []

    def overflowing(*args: object) -> tuple[Tensor, Tensor]:
        chosen, overflow = real(*args)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) % 7 == 3:
            chosen[0], overflow[0] = 0, True
        return chosen, overflow

    expected = ask(Engine(backend_of(), eos_ids=NO_EOS), text(20), SAMPLED, 2, 36).tokens
    monkeypatch.setattr(rounds, "choose", overflowing)

    assert ask(Engine(backend_of(), eos_ids=NO_EOS), text(20), SAMPLED, 2, 36).tokens == expected
    assert len(calls) > 7


def answers(backend: Counting, eos: frozenset[int], cancelled: dict[int, int]) -> list[object]:
    """Six requests in three slots, some of them cancelled before a step: what becomes of each."""
    engine = Engine(backend, eos_ids=eos, prefix_bytes=0)
    kinds = [GREEDY, SAMPLED, Sampling(seed=9, repeat_penalty=1.2)]
    events, step = [], 0
    for id in range(6):
        request = EngineRequest(id, text(9 + 5 * id, id), kinds[id % 3], "auto", 16 + 5 * id)
        engine.add(request)
    while engine.has_work:
        for id in [id for id, when in cancelled.items() if when == step]:
            engine.cancel(id)
        events += engine.step()
        step += 1
    ends = [event for event in events if isinstance(event, Finished)]
    assert sorted(end.id for end in ends) == list(range(6))
    return [
        (answer_of(events, id).tokens, answer_of(events, id).finished.reason) for id in range(6)
    ]


def test_cuda_texts_that_end_meanwhile_take_nothing_along(backend_of: Callable) -> None:
    """Ends by a token and by length, slots given on at once: each answer as with rounds alone."""
    eos = frozenset(range(4))
    alone, early = backend_of(), backend_of()
    alone.alone = True

    assert answers(early, eos, {}) == answers(alone, eos, {})
    assert early.followed > 10


def test_cuda_cancelled_texts_take_nothing_along(backend_of: Callable) -> None:
    """A cancelled answer is the start of the whole one; all others are whole."""
    whole, cut = answers(backend_of(), NO_EOS, {}), answers(backend_of(), NO_EOS, {1: 9, 3: 14})

    for id, ((tokens, _), (found, reason)) in enumerate(zip(whole, cut, strict=True)):
        assert reason == ("cancel" if id in (1, 3) else "length")
        assert found == tokens[: len(found)]
        assert len(found) == len(tokens) or id in (1, 3)


@torch.inference_mode()
def test_cuda_next_turn_goes_on_from_a_text_that_was_followed(backend_of: Callable) -> None:
    """What a lost round wrote behind a text is not read by the next prompt."""
    backend, fresh = backend_of(slots=1, num_ctx=FAR), backend_of(slots=1, num_ctx=FAR)
    first = ask(Engine(fresh, eos_ids=NO_EOS), text(30), GREEDY, 4, 40).tokens
    eos = frozenset({first[28]})
    stop = next(i for i, token in enumerate(first) if token in eos)
    engine = Engine(backend, eos_ids=eos, prefix_bytes=0)
    ask(engine, text(30), GREEDY, 4, 40)
    turn = [*text(30), *first[:stop], *text(5, 7)]

    again = ask(engine, turn, GREEDY, 4, 20).tokens

    assert (
        again
        == ask(Engine(backend_of(slots=1, num_ctx=FAR), eos_ids=eos), turn, GREEDY, 0, 20).tokens
    )
