"""Stops a pair that keeps crashing from being started again and again; time is an argument."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gemmad.api.errors import Busy, GemmaError, RunnerCrashed
from gemmad.core import ModelName

CRASHES = 3
WINDOW_S = 60.0
OPEN_S = 60.0


class CrashRecord(NamedTuple):
    """Crashes of a pair within the last WINDOW_S, or those that opened the breaker."""

    crashes: int
    open_until: float
    reason: str
    log_tail: tuple[str, ...]


@dataclass(slots=True)
class _Record:
    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=CRASHES))
    open_until: float = float("-inf")
    reason: str = ""
    log_tail: tuple[str, ...] = ()


class CrashBreaker:
    """Counts crashes per pair: CRASHES within WINDOW_S refuse the pair for OPEN_S."""

    def __init__(self) -> None:
        self._records: dict[ModelName, _Record] = {}

    def crashed(self, name: ModelName, error: RunnerCrashed, now: float) -> None:
        """One more crash of `name` has happened."""
        record = self._records.setdefault(name, _Record())
        record.crashes.append(now)
        record.reason, record.log_tail = error.message, error.log_tail
        if len(record.crashes) == CRASHES and now - record.crashes[0] <= WINDOW_S:
            record.open_until = now + OPEN_S

    def record(self, name: ModelName, now: float) -> CrashRecord | None:
        """What is known of recent crashes of `name`; None: there were none."""
        record = self._records.get(name)
        if record is None:
            return None
        count = sum(now - at <= WINDOW_S for at in record.crashes)
        if not count and now >= record.open_until:
            return None
        return CrashRecord(count, record.open_until, record.reason, record.log_tail)

    def refused(self, now: float) -> Iterator[tuple[ModelName, CrashRecord]]:
        """Who may not be started at `now`, and why."""
        for name in self._records:
            record = self.record(name, now)
            if record is not None and now < record.open_until:
                yield name, record

    def refusal(self, name: ModelName, now: float) -> GemmaError | None:
        """Why `name` may not be started at `now`, or None."""
        record = self._records.get(name)
        if record is None or now >= record.open_until:
            return None
        wait = max(1, round(record.open_until - now))
        return Busy(
            f"model '{name.short}' crashed {CRASHES} times within {WINDOW_S:.0f} s and is refused "
            f"for {wait} s more. Last crash: {record.reason}",
            fix="See the runner's log, then try again.",
            retry_after_s=wait,
        )
