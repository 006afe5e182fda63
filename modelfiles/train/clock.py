"""Time left until the deadline, and how long each phase took."""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Counts from the program's start; phases shorten themselves to what is left."""

    def __init__(self, deadline_s: float) -> None:
        self._start = time.perf_counter()
        self.deadline_s = deadline_s
        self.phases: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def budget_s(self, wanted_s: float, reserve_s: float) -> float:
        """Return `wanted_s`, or less if `reserve_s` would not be left before the deadline."""
        return max(0.0, min(wanted_s, self.deadline_s - self.elapsed_s - reserve_s))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase and print its begin and end."""
        begun = self.elapsed_s
        print(f"[{begun:6.1f} s] {name}", flush=True)
        try:
            yield
        finally:
            self.phases[name] = round(self.elapsed_s - begun, 1)
            print(f"[{self.elapsed_s:6.1f} s] {name} took {self.phases[name]} s", flush=True)

    def attempt(self, name: str, work: Callable[[], T], otherwise: T) -> T:
        """Return what a phase returns, or `otherwise` if it fails, which is printed.

        For phases that measure: their failure must not lose what a lent device has trained.
        """
        try:
            with self.phase(name):
                return work()
        except Exception:  # the training goes on, and the output says what failed
            traceback.print_exc()
            return otherwise
