"""Who waits, in the order in which they are served; time is an argument.

Interactive requests come before batch ones, each kind in the order of arrival. A batch request
that has waited for AGE_S counts as interactive, so that none starves.
"""

import math
from collections.abc import Iterator

from gemmad.core import ModelName
from gemmad.residency.resident import Waiter

AGE_S = 60.0


class WaitingQueue:
    """The requests without a pair."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}  # in the order of arrival

    def __len__(self) -> int:
        return len(self._waiters)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._waiters

    def add(self, waiter: Waiter) -> None:
        """It waits from here on."""
        self._waiters[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """It does not wait any more."""
        self._waiters.pop(waiter, None)

    def ordered(self, now: float) -> list[Waiter]:
        """Who is served first comes first."""
        return sorted(self._waiters, key=lambda waiter: (yields(waiter, now), waiter.arrived))

    def of(self, name: ModelName) -> list[Waiter]:
        """Those that wait for this pair."""
        return [waiter for waiter in self._waiters if waiter.wanted.name == name]

    def late(self, now: float) -> Iterator[Waiter]:
        """Those whose deadline has passed."""
        return iter([waiter for waiter in self._waiters if now >= waiter.deadline])

    def next_time(self, now: float) -> float:
        """When the next of them is late or grows old."""
        times = [waiter.deadline for waiter in self._waiters]
        times += [w.arrived + AGE_S for w in self._waiters if yields(w, now)]
        return min(times, default=math.inf)

    def shift(self, seconds: float) -> None:
        """The machine slept for so long: nobody waited meanwhile."""
        for waiter in self._waiters:
            waiter.arrived += seconds
            waiter.deadline += seconds


def yields(waiter: Waiter, now: float) -> bool:
    """Whether it lets interactive requests pass."""
    return waiter.priority == "batch" and now < waiter.arrived + AGE_S
