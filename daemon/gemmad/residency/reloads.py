"""Stops clients that alternate from having a pair loaded again and again; time is an argument.

A reload is the load of a pair that had to leave for another one, or for other settings of its own.
"""

from collections import deque

from gemmad.api.errors import Busy
from gemmad.core import ModelName

RELOADS = 3
WINDOW_S = 60.0


class Reloads:
    """Counts reloads per pair: RELOADS within WINDOW_S, and the next one is refused."""

    def __init__(self) -> None:
        self._left: set[ModelName] = set()  # who went for others, and has not come back
        self._times: dict[ModelName, deque[float]] = {}

    def left(self, name: ModelName) -> None:
        """The pair had to leave."""
        self._left.add(name)

    def loading(self, name: ModelName, now: float) -> None:
        """The pair is loaded."""
        if name in self._left:
            self._left.discard(name)
            self._times.setdefault(name, deque(maxlen=RELOADS)).append(now)

    def refusal(self, name: ModelName, now: float, *, leaves: bool = False) -> Busy | None:
        """Why the pair may not be loaded now, or None; `leaves`: it would have to leave first."""
        times = self._times.get(name)
        if times is None or not (leaves or name in self._left):
            return None
        if len(times) < RELOADS or now - times[0] >= WINDOW_S:
            return None
        wait = max(1, round(times[0] + WINDOW_S - now))
        return Busy(
            f"model '{name.short}' was reloaded {RELOADS} times within {WINDOW_S:.0f} s for "
            "requests that take turns, and is not loaded again yet.",
            fix="Let all clients use the same num_ctx and options, raise max_loaded, "
            f"or try again in {wait} s.",
            retry_after_s=wait,
        )
