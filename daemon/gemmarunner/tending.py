"""What a daemon asks of a loaded pair's memory, done between two steps of the engine.

    main thread      put()       registers what is wanted, never waits
    engine thread    run()       gives back, takes the drafter out, puts it in, measures; answers
    loading thread   _load()     reads a drafter's files beside running answers, then ends

An `Attach` has two parts: its thread loads the weights, the engine thread puts them in, a bounded
piece of work between two rounds. A `Detach` that comes meanwhile wins: what was loaded is dropped.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, assert_never

from gemmad.api.errors import Busy, GemmaError, LoadFailed, WillNotFit
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

_log = logging.getLogger(__name__)

Chore = Reclaim | Detach | Attach | Measure


class LoadedDrafter(NamedTuple):
    """A drafter's weights, in memory."""

    drafter: Any  # as the engine's backend wants it
    nbytes: int


LoadDrafter = Callable[[], LoadedDrafter]


class TendedEngine(Protocol):
    """What is needed of the engine; all but `has_work` is for the engine thread.

    What `done` tells comes in a later `step`, between two rounds.
    """

    @property
    def prefix_bytes(self) -> int: ...
    @property
    def drafts(self) -> bool: ...
    def reclaim(self, nbytes: int) -> int: ...
    def detach(self, done: Callable[[int], None]) -> None: ...
    def attach(self, drafter: Any, done: Callable[[Exception | None], None]) -> None: ...


class PairMemory(Protocol):
    """A pair's drafter apart from the engine, and what the process takes."""

    @property
    def drafter_bytes(self) -> int:
        """Bytes of the drafter that is in memory, 0 without one."""

    @property
    def load_drafter(self) -> LoadDrafter:
        """Brings the drafter of the load's files into memory; raises what is wrong."""

    def drafter_is(self, nbytes: int) -> None:
        """The drafter that is in memory has so many bytes; 0: there is none."""

    def measure(self, prefix_bytes: int) -> Measured:
        """What the process takes now, `prefix_bytes` of it kept prompts."""


class Tending:
    """The chores of one pair."""

    def __init__(
        self,
        engine: TendedEngine,
        memory: PairMemory,
        send: Callable[[FromRunner], None],
        wake: Callable[[], None],
    ) -> None:
        """`wake`, from any thread, makes the engine thread call `run` soon."""
        self._engine = engine
        self._memory = memory
        self._send = send
        self._wake = wake
        self._chores: queue.SimpleQueue[Chore | LoadedDrafter | Exception] = queue.SimpleQueue()
        self._attaches = 0  # Attach frames without an answer
        self._is_unwanted = False  # a Detach came after them

    def put(self, chore: Chore) -> None:
        """`chore` will be done and answered."""
        self._chores.put(chore)
        self._wake()

    def run(self) -> None:
        """Does what was put; the engine's next steps finish it."""
        while not self._chores.empty():  # nobody else takes from it
            match self._chores.get():
                case Reclaim(nbytes):
                    self._send(Reclaimed(self._engine.reclaim(nbytes)))
                case Measure():
                    self._send(self._memory.measure(self._engine.prefix_bytes))
                case Detach():
                    self._is_unwanted = self._attaches > 0
                    self._engine.detach(self._on_detached)
                case Attach():
                    self._attach()
                case LoadedDrafter() as loaded:
                    self._on_loaded(loaded)
                case Exception() as error:
                    self._on_failed(error)
                case other:
                    assert_never(other)

    def _on_detached(self, nbytes: int) -> None:
        freed = nbytes or self._memory.drafter_bytes  # not every system says what became free
        self._memory.drafter_is(0)
        self._send(Detached(freed))

    def _attach(self) -> None:
        if self._engine.drafts and not self._attaches:
            self._send(Attached(self._memory.drafter_bytes))
            return
        self._is_unwanted = False
        self._attaches += 1
        if self._attaches == 1:
            threading.Thread(target=self._load, name="drafter", daemon=True).start()

    def _load(self) -> None:
        found: LoadedDrafter | Exception
        try:
            found = self._memory.load_drafter()
        except Exception as error:  # whatever it is, the daemon is told and the target goes on
            found = error
        self._chores.put(found)
        self._wake()

    def _on_loaded(self, loaded: LoadedDrafter) -> None:
        if self._is_unwanted:
            self._on_failed(Busy("The drafter was taken out again while it was loading."))
            return

        def done(error: Exception | None) -> None:
            if error is not None:
                self._on_failed(error)
                return
            self._memory.drafter_is(loaded.nbytes)
            self._answer(Attached(loaded.nbytes))

        self._engine.attach(loaded.drafter, done)

    def _on_failed(self, error: Exception) -> None:
        told = _told(error)
        _log.warning("the target goes on without its drafter: %s", told, exc_info=error)
        self._answer(AttachFailed(code=told.code, message=told.message, fix=told.fix))

    def _answer(self, frame: Attached | AttachFailed) -> None:
        """All that waited for this get the same answer."""
        for _ in range(self._attaches):
            self._send(frame)
        self._attaches = 0


def _told(error: Exception) -> GemmaError:
    if isinstance(error, GemmaError):
        return error
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return WillNotFit(f"The drafter does not fit: {error}.")
    return LoadFailed(f"The drafter could not be loaded: {type(error).__name__}: {error}.")
