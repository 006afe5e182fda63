"""Chores between two steps, through real threads and a stub engine."""

import queue
import threading
from typing import TypeVar, cast

import pytest

from gemmad.api.errors import PairMismatch
from gemmad.wire import (
    Attach,
    Attached,
    AttachFailed,
    Detach,
    Detached,
    FromRunner,
    Measure,
    Measured,
    Reclaim,
    Reclaimed,
)
from gemmarunner.serving import Serving
from tests.fakes.stub_engine import StubMemory, stub_served

Frame = TypeVar("Frame", bound=FromRunner)


class Pair:
    """A Serving whose engine thread runs, and the frames it sends."""

    def __init__(self) -> None:
        served = stub_served()
        self.memory = cast(StubMemory, served.memory)
        self.frames: queue.SimpleQueue[FromRunner] = queue.SimpleQueue()
        self.serving = Serving(served, self.put)
        threading.Thread(target=self.serving.run_engine, daemon=True).start()

    def put(self, *frames: FromRunner) -> None:
        for frame in frames:
            self.frames.put(frame)

    def told(self, kind: type[Frame]) -> Frame:
        """The next frame, which is of that kind."""
        frame = self.frames.get(timeout=20)
        assert isinstance(frame, kind), frame
        return frame


@pytest.fixture
def pair() -> Pair:
    """A fresh one, idle."""
    return Pair()


def test_drafter_goes_and_comes_and_is_measured(pair: Pair) -> None:
    """What became free, what it takes again, and what the process takes are told in between."""
    for chore in (Detach(), Measure(), Reclaim(7)):
        pair.serving.do(chore)
    assert pair.told(Measured).drafter_bytes == 100
    assert pair.told(Reclaimed).nbytes == 7
    assert pair.told(Detached).nbytes == 100

    pair.serving.do(Measure())
    assert pair.told(Measured).drafter_bytes == 0
    pair.serving.do(Attach())
    assert pair.told(Attached).drafter_bytes == 100


def test_attach_of_a_drafter_that_is_there_is_answered_at_once(pair: Pair) -> None:
    """Nothing is loaded a second time."""
    pair.memory.gate.clear()

    pair.serving.do(Attach())

    assert pair.told(Attached).drafter_bytes == 100


def detached(pair: Pair) -> Pair:
    """The pair without its drafter."""
    pair.serving.do(Detach())
    pair.told(Detached)
    return pair


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PairMismatch("Not this one."), "pair_mismatch"),
        (MemoryError(), "will_not_fit"),
        (OSError("bad disk"), "load_failed"),
    ],
)
def test_failed_load_of_a_drafter_is_told(pair: Pair, error: Exception, code: str) -> None:
    """Each kind of failure has its code, and the next attempt may succeed."""
    detached(pair).memory.error = error
    pair.serving.do(Attach())
    assert pair.told(AttachFailed).code == code

    pair.memory.error = None
    pair.serving.do(Attach())
    assert pair.told(Attached).drafter_bytes == 100


def test_drafter_that_the_engine_refuses_is_told(pair: Pair) -> None:
    """Putting it in needs memory too."""
    detached(pair).memory.refused = RuntimeError("no room for graphs")

    pair.serving.do(Attach())

    assert "no room for graphs" in pair.told(AttachFailed).message


def test_detach_wins_over_a_load_under_way(pair: Pair) -> None:
    """What was loading is dropped, and both are answered."""
    detached(pair).memory.gate.clear()
    pair.serving.do(Attach())
    pair.serving.do(Detach())
    assert pair.told(Detached).nbytes == 0
    pair.memory.gate.set()

    assert pair.told(AttachFailed).code == "busy"


def test_attaches_that_come_together_load_once(pair: Pair) -> None:
    """Each gets its answer."""
    detached(pair).memory.gate.clear()
    for _ in range(2):
        pair.serving.do(Attach())
    pair.serving.do(Measure())
    pair.told(Measured)
    pair.memory.gate.set()

    assert [pair.told(Attached).drafter_bytes for _ in range(2)] == [100, 100]
