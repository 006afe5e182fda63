"""Counts what requests and residency did: plain numbers, read when somebody asks for metrics."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gemmad.residency.seen import EventKind, ResidencyEvent
from gemmad.wire import Delta, Done

WAIT_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
FIRST_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BETWEEN_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_LEFT = {
    EventKind.EVICTED: "pair",
    EventKind.DETACHED: "drafter",
    EventKind.RECLAIMED: "prefixes",
}
# How residency begins its reasons, and the few words that a metric knows: names of models and
# numbers would make a series each.
_REASONS = {"to make room": "room", "short of": "pressure"}


class Histogram:
    """How many values fell under each bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """One more value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Each bound and how many values are not beyond it; the last is all of them."""
        count = 0
        for bound, own in zip((*self.bounds, float("inf")), self._counts, strict=True):
            count += own
            yield ("+Inf" if bound == float("inf") else f"{float(bound)}"), count


def _waits() -> Histogram:
    return Histogram(WAIT_S)


@dataclass(slots=True)
class Counts:
    """All counted since the daemon started. Only the event loop's thread writes and reads it."""

    requests: Counter[tuple[str, str, int]] = field(
        default_factory=Counter
    )  # method, route, status
    events: Counter[str] = field(default_factory=Counter)  # by kind
    left: Counter[tuple[str, str]] = field(default_factory=Counter)  # what had to, and why
    drafted: Counter[int] = field(default_factory=Counter)  # rounds that reached draft i, from 1
    accepted: Counter[int] = field(default_factory=Counter)
    prompt_tokens: int = 0
    answer_tokens: int = 0
    waits: Histogram = field(default_factory=_waits)
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_S))
    between: Histogram = field(default_factory=lambda: Histogram(BETWEEN_S))

    def on_event(self, told: ResidencyEvent) -> None:
        """Residency did something."""
        self.events[told.kind.value] += 1
        if what := _LEFT.get(told.kind):
            known = (word for start, word in _REASONS.items() if told.reason.startswith(start))
            self.left[what, next(known, "other")] += 1

    def on_done(self, done: Done) -> None:
        """An answer is complete."""
        self.prompt_tokens += done.prompt_tokens
        self.answer_tokens += done.eval_tokens
        for position, (reached, accepted) in enumerate(done.positions, 1):
            self.drafted[position] += reached
            self.accepted[position] += accepted


class AnswerWatch:
    """The times of one answer, from the request's arrival on."""

    def __init__(self, counts: Counts, monotonic_ns: Callable[[], int]) -> None:
        self._counts = counts
        self._monotonic_ns = monotonic_ns
        self._arrived = monotonic_ns()
        self._last: int | None = None

    def granted(self) -> None:
        """Its pair is loaded and the request's turn has come."""
        self._counts.waits.add((self._monotonic_ns() - self._arrived) / 1e9)

    def saw(self, events: Sequence[Delta | Done]) -> None:
        """Pieces of the answer that came together; the last may be its end."""
        if isinstance(last := events[-1], Done):
            self._counts.on_done(last)
        if isinstance(events[0], Delta):
            self._piece()

    def _piece(self) -> None:
        now = self._monotonic_ns()
        if self._last is None:
            self._counts.first_token.add((now - self._arrived) / 1e9)
        else:
            self._counts.between.add((now - self._last) / 1e9)
        self._last = now
