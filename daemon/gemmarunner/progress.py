"""How far a load is, told to the daemon at each change of phase and again at every tick."""

import sys
import threading
from collections.abc import Callable

from gemmad.wire import Progress

TICK_S = 0.5


class LoadProgress:
    """Written by the loading thread; the main thread's ticks send what it wrote last."""

    def __init__(self, send: Callable[[Progress], None]) -> None:
        self._send = send
        self._now: Progress | None = None
        # Between finish() in the loading thread and tick() in the main thread: a tick that has
        # begun is sent before finish returns, so none comes after the `loaded` that follows.
        self._lock = threading.Lock()

    def report(self, phase: str, done: int, total: int) -> None:
        """`done` of `total` of `phase` is done; total 0 means that nobody knows."""
        entered = self._now is None or self._now.phase != phase
        self._now = Progress(phase, done, total)
        if entered:
            self._send(self._now)

    def finish(self) -> None:
        """No tick sends anything more."""
        with self._lock:
            self._now = None

    def tick(self) -> None:
        """The daemon knows the latest; an import shows that it moves by the modules it has read."""
        with self._lock:
            now = self._now
            if now is not None and now.phase == "import":
                now = Progress("import", len(sys.modules), 0)
            if now is not None:
                self._send(now)
