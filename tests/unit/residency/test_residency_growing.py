"""A context that was made smaller for want of memory, and how it comes back."""

import pytest

from gemmad.api.errors import Busy, WillNotFit
from gemmad.residency.fits import Allowed, Scales, of_files, ways
from gemmad.residency.placing import WaysOf
from gemmad.residency.reloads import RELOADS
from gemmad.residency.resident import State
from tests.fakes.residency_world import RESERVE, TOTAL, World

FULL, HALF = 8192, 4096
BYTES = 16  # tokens of context a byte


def of_context(wanted, setting):
    """A pair that is all context."""
    return of_files(setting.num_ctx // BYTES, 0, drafter=False, unified=False)


@pytest.fixture
def world() -> World:
    def every(wanted, machine, rooms):
        return ways(wanted, machine, Allowed(), Scales(of_context), rooms)

    return World(WaysOf(every))


@pytest.fixture
def shrunk(world: World) -> World:
    """Pair a is in memory, idle, with half of its context."""
    world.outside = TOTAL - RESERVE - HALF // BYTES
    world.leave(world.ask("a", num_ctx=FULL))
    world.load_ends("ready")
    assert contexts(world) == {"a": HALF}
    world.outside = 0
    world.look()
    world.log.clear()
    return world


def contexts(world: World) -> dict[str, int]:
    return {r.wanted.name.short: r.num_ctx for r in world.scheduler.residents}


def test_the_next_load_takes_the_whole_context(shrunk):
    """It was smaller for this one load."""
    shrunk.wait(100)  # its keep_alive ends
    shrunk.stop_ends()
    shrunk.ask("a", num_ctx=FULL)

    assert contexts(shrunk) == {"a": FULL}


def test_what_fits_into_the_smaller_context_reloads_nothing(shrunk):
    """A reload costs more than it brings to a short prompt."""
    asking = shrunk.ask("a", num_ctx=FULL)

    assert asking in shrunk.granted
    assert shrunk.log == ["grant a"]


def test_a_prompt_that_did_not_fit_gets_the_whole_context(shrunk):
    """Memory has room again: the idle pair is loaded once more, for this request."""
    asking = shrunk.ask("a", num_ctx=FULL, more_than=HALF)
    shrunk.stop_ends()
    shrunk.load_ends("ready")

    assert asking in shrunk.granted
    assert contexts(shrunk) == {"a": FULL}


def test_a_pair_that_cannot_grow_stays_as_it_is(shrunk):
    """Memory is as short as it was: no reload that would bring nothing."""
    shrunk.outside = TOTAL - RESERVE - HALF // BYTES
    shrunk.look()
    asking = shrunk.ask("a", num_ctx=FULL, more_than=HALF)

    assert isinstance(shrunk.errors[asking], WillNotFit)
    assert contexts(shrunk) == {"a": HALF}


def test_no_other_pair_leaves_for_it(shrunk):
    """An idle one has the room."""
    shrunk.leave(shrunk.ask("b", num_ctx=FULL, exact=True))
    shrunk.load_ends("ready")
    shrunk.log.clear()
    asking = shrunk.ask("a", num_ctx=FULL, more_than=HALF)

    assert isinstance(shrunk.errors[asking], WillNotFit)
    assert "stop b" not in shrunk.log


def test_a_running_answer_ends_before_the_pair_grows(shrunk):
    """The one that needs more waits for it."""
    running = shrunk.ask("a", num_ctx=FULL)
    shrunk.ask("a", num_ctx=FULL, more_than=HALF)
    assert next(iter(shrunk.scheduler.residents)).state is State.DRAINING
    shrunk.leave(running)
    shrunk.stop_ends()

    assert shrunk.log == ["grant a", "stop a", "load a"]


def test_memory_that_comes_and_goes_does_not_reload_for_ever(world):
    """The limit of reloads holds for these, too."""
    asked = []
    for _ in range(RELOADS + 1):
        world.outside = TOTAL - RESERVE - HALF // BYTES
        world.look()
        world.leave(world.ask("a", num_ctx=FULL))
        if world.loading:
            world.load_ends("ready")
        world.outside = 0
        world.look()
        asked.append(world.ask("a", num_ctx=FULL, more_than=HALF))
        if world.stopping:
            world.stop_ends()
            world.load_ends("ready")
        world.leave(asked[-1])
        world.scheduler.unload(asked[-1].wanted.name, world.now)
        world.stop_ends()
        world.now += 10  # what it held is back

    assert isinstance(world.errors[asked[-1]], Busy)
    assert all(asking in world.granted for asking in asked[:-1])
