"""A drafter leaves and comes back while answers run, and not one word of them changes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.engine.drafter import DetachedMeanwhile
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineEvent, EngineRequest
from gemmarunner.engine.request import Sampling
from tests.fakes.engine_runs import GREEDY, NO_EOS, answer_of, eager_engine, run_all, tiny_pair
from tests.fakes.table_models import TableDrafter, TableTarget, random_table
from tests.fakes.tiny_models import VOCAB as TINY_VOCAB

TABLE = random_table(12)
DRAFTER = TableDrafter(TABLE)
SAMPLINGS = (GREEDY, Sampling(seed=5), Sampling(seed=6, repeat_penalty=1.3, top_k=0))


def requests(vocab: int, tokens: int) -> list[EngineRequest]:
    """One of each kind: greedy, sampled, penalised."""
    return [
        EngineRequest(id, [(3 + id * i) % vocab for i in range(6)], sampling, "auto", tokens)
        for id, sampling in enumerate(SAMPLINGS)
    ]


def table_engine(**options: Any) -> Engine:
    """A pair of tables with room for all requests."""
    return eager_engine(TableTarget(TABLE), DRAFTER, num_ctx=128, slots=3, **options)


def texts(events: list[EngineEvent]) -> list[list[int]]:
    """Each request's tokens."""
    return [answer_of(events, id).tokens for id in range(len(SAMPLINGS))]


def run_switching(engine: Engine, drafter: Any, turns: dict[int, str]) -> list[EngineEvent]:
    """Runs to the end; before step n what `turns[n]` says is asked for."""
    events: list[EngineEvent] = []
    step = 0
    while engine.has_work:
        match turns.get(step):
            case "detach":
                engine.detach(lambda _: None)
            case "attach" if not engine.drafts and not engine.attaching:
                engine.attach(drafter, lambda _: None)
        events += engine.step()
        step += 1
    return events


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, 40), st.sampled_from(["detach", "attach"]), max_size=12))
def test_words_do_not_depend_on_when_the_drafter_is_there(turns: dict[int, str]) -> None:
    """Greedy, sampled and penalised answers are those of a pair that is left alone."""
    left_alone, switched = table_engine(), table_engine()
    for request in requests(12, 40):
        left_alone.add(request)
        switched.add(request)

    expected = texts(run_all(left_alone))

    assert texts(run_switching(switched, DRAFTER, turns)) == expected


@pytest.mark.parametrize("shape", ["e2b", "12b"])
def test_words_of_a_real_shape_stay_when_its_drafter_goes_and_comes(
    shape: str, tmp_path: Path
) -> None:
    """The decoder's own numbers, with the drafter out for some rounds in the middle."""
    target, drafter = tiny_pair(shape, tmp_path, torch.float32)
    engines = [eager_engine(target, drafter, num_ctx=128, slots=3) for _ in range(2)]
    for request in requests(TINY_VOCAB, 40):
        for engine in engines:
            engine.add(request)

    expected = texts(run_all(engines[0]))

    assert texts(run_switching(engines[1], drafter, {8: "detach", 16: "attach"})) == expected


def test_rounds_draft_only_while_there_is_a_drafter() -> None:
    """A fixed depth counts no drafts without it, and drafts again afterwards."""
    engine, freed, attached = table_engine(), [], []
    engine.detach(freed.append)
    without = drafted(engine)
    engine.attach(DRAFTER, attached.append)

    assert (len(freed), without) == (1, 0)
    assert drafted(engine) > 0
    assert attached == [None]


def drafted(engine: Engine) -> int:
    """Tokens drafted for an answer at depth 4."""
    engine.add(EngineRequest(1, [1, 2], GREEDY, 4, 20))
    return answer_of(run_all(engine), 1).finished.draft.drafted


def test_what_was_learned_of_depths_outlives_the_drafter() -> None:
    """Its costs and acceptance are there when it comes back."""
    engine = table_engine()
    drafted(engine)
    learned = engine.depth_state()

    engine.detach(lambda _: None)
    engine.step()
    engine.attach(DRAFTER, lambda _: None)
    engine.step()

    assert engine.depth_state() == learned


def test_pair_loaded_without_its_drafter_drafts_when_it_comes() -> None:
    """Room for its depths was kept."""
    engine = eager_engine(TableTarget(TABLE), None, num_ctx=128, may_attach=True)
    without = drafted(engine)
    engine.attach(DRAFTER, lambda _: None)

    assert (without, drafted(engine) > 0) == (0, True)


class SlowBackend(EagerBackend):
    """Putting a drafter in takes three pieces of work, of which one may fail."""

    error: Exception | None = None

    def attach(self, drafter: Any) -> Iterator[None]:
        for _ in range(3):
            yield
        if self.error:
            raise self.error
        yield from super().attach(drafter)


def slow_engine() -> tuple[SlowBackend, Engine]:
    """An idle pair whose drafter was taken out."""
    backend = SlowBackend(TableTarget(TABLE), DRAFTER, num_ctx=128)
    engine = Engine(backend, eos_ids=NO_EOS)
    engine.detach(lambda _: None)
    engine.step()
    return backend, engine


def test_putting_in_goes_on_between_rounds() -> None:
    """An answer moves on with every step of it."""
    _, engine = slow_engine()
    engine.add(EngineRequest(1, [1, 2], GREEDY, "auto", 3))
    attached: list[Exception | None] = []
    engine.attach(DRAFTER, attached.append)

    events = [event for _ in range(3) for event in engine.step()]

    assert len(events) > 1
    assert attached == []
    run_all(engine)
    assert attached == [None]


def test_failed_putting_in_leaves_the_target_alone() -> None:
    """The error is told, and nothing is left of the drafter."""
    backend, engine = slow_engine()
    backend.error = torch.OutOfMemoryError("no room")
    attached: list[Exception | None] = []
    engine.attach(DRAFTER, attached.append)
    run_all(engine)

    assert (attached, engine.drafts) == ([backend.error], False)
    assert drafted(engine) == 0


def test_taking_out_wins_over_putting_in() -> None:
    """Who wanted it in is told, and who wanted it out as well."""
    _, engine = slow_engine()
    attached, freed = [], []
    engine.attach(DRAFTER, attached.append)
    engine.step()

    engine.detach(freed.append)
    run_all(engine)

    assert isinstance(attached[0], DetachedMeanwhile)
    assert (len(freed), engine.drafts) == (1, False)
