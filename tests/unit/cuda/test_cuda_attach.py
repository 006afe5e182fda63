"""Fused rounds without the drafter and with it again: the same words, and nothing of it is left."""

import gc
import weakref
from collections.abc import Callable

import pytest

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineRequest
from gemmarunner.engine.request import Sampling
from tests.fakes.engine_runs import GREEDY, NO_EOS, answer_of
from tests.unit.cuda.cuda_pairs import Pairs, begun, grown, sampler, text

SAMPLINGS = (GREEDY, Sampling(seed=5, temperature=0.8), Sampling(seed=6, repeat_penalty=1.2))


def words(engine: Engine, turns: dict[int, Callable[[], None]]) -> list[list[int]]:
    """Three answers beside one another; before step n `turns[n]` is called."""
    for id, sampling in enumerate(SAMPLINGS):
        engine.add(EngineRequest(id, text(9 + id), sampling, 3, 24))
    events, step = [], 0
    while engine.has_work:
        turns.get(step, lambda: None)()
        events += engine.step()
        step += 1
    return [answer_of(events, id).tokens for id in range(3)]


@pytest.mark.parametrize(
    "shape",
    [
        "e2b",
        *(pytest.param(shape, marks=pytest.mark.slow) for shape in ("e4b", "12b", "26b", "31b")),
    ],
)
def test_cuda_words_stay_when_the_drafter_goes_and_comes(
    pair_of: Callable[[str], Pairs], shape: str
) -> None:
    """Greedy, sampled and penalised, in every shape."""
    pair = pair_of(shape)
    expected = words(Engine(pair.backend(), eos_ids=NO_EOS), {})
    switched = Engine(pair.backend(), eos_ids=NO_EOS)
    told: list[Exception | None] = []

    found = words(
        switched,
        {
            4: lambda: switched.detach(lambda _: None),
            8: lambda: switched.attach(pair.drafter, told.append),
        },
    )

    assert found == expected
    assert told == [None]


def test_cuda_trial_rounds_leave_texts_alone(pair_of: Callable[[str], Pairs]) -> None:
    """What putting a drafter in writes is behind the texts, and hidden rows are put back."""
    pair, by = pair_of("e4b"), sampler(temperature=0.0)
    untouched, backend = pair.backend(slots=2), pair.backend(slots=2)
    expected, grown_so_far = (
        grown(b, [begun(b, s, text(9 + s), by) for s in (0, 1)], [by, by], [[3, 2]] * 3)
        for b in (untouched, backend)
    )
    backend.detach()

    for _ in backend.attach(pair.drafter):
        pass

    assert grown(backend, grown_so_far, [by, by], [[3, 2]] * 3) == grown(
        untouched, expected, [by, by], [[3, 2]] * 3
    )


def test_cuda_depth_is_none_until_all_rounds_are_there(pair_of: Callable[[str], Pairs]) -> None:
    """A round that is not captured yet is not asked for."""
    pair = pair_of("e4b")
    backend = pair.backend()
    full = backend.depth_limit(1)
    backend.detach()
    work = backend.attach(pair.drafter)
    next(work)
    during = backend.depth_limit(1)
    for _ in work:
        pass

    assert (full, during, backend.depth_limit(1)) == (4, 0, 4)


def test_cuda_detached_drafter_is_nobodys(pair_of: Callable[[str], Pairs]) -> None:
    """Rounds, graphs and the last flight let go of it, so its memory is free."""
    pair, by = pair_of("e2b"), sampler(temperature=0.0)
    drafter = type(pair.drafter).__new__(type(pair.drafter))
    drafter.__dict__.update(pair.drafter.__dict__)
    backend = CudaBackend(pair.target, drafter, num_ctx=64, slots=1, max_depth=2, max_rows=64)
    grown(backend, [begun(backend, 0, text(9), by)], [by], [[2]])
    seen = weakref.ref(drafter)
    del drafter

    backend.detach()
    gc.collect()

    assert seen() is None
