"""What drafting has cost and brought so far: moving averages, bounded against outliers."""

from collections.abc import Mapping, Sequence
from typing import Final

_COST_WEIGHT = 0.3
_COST_CLAMP = 0.25  # one sample moves the average at most this share times the weight
_RATE_WEIGHT = 0.1
_SETTLING = (
    3  # the first samples of a depth take their minimum: one start-up hiccup leaves no trace
)
TRUSTED: Final = 10  # samples after which an acceptance rate stands for itself
_OPTIMISM = 0.9  # acceptance of a first position never seen
_PRIOR_SAMPLES = 2


class CostTable:
    """Seconds a whole round takes at each depth."""

    def __init__(self, seconds: Mapping[int, float] | None = None) -> None:
        self._seconds = dict(seconds or {})
        self._samples: dict[int, int] = {}  # of this process; older figures yield to the first
        self._previous: int | None = None

    @property
    def seconds(self) -> dict[int, float]:
        """The average of every depth measured."""
        return dict(sorted(self._seconds.items()))

    def record(self, depth: int, seconds: float) -> None:
        """Counts a round unless the depth has just changed: a change of shape costs extra."""
        changed, self._previous = depth != self._previous, depth
        if changed or seconds <= 0:
            return
        count = self._samples.get(depth, 0)
        self._samples[depth] = count + 1
        if count == 0:
            self._seconds[depth] = seconds
        elif count < _SETTLING:
            self._seconds[depth] = min(seconds, self._seconds[depth])
        else:
            self._seconds[depth] = _averaged(self._seconds[depth], seconds)

    def knows(self, depth: int) -> bool:
        """Whether this depth was measured."""
        return depth in self._seconds

    def estimate(self, depth: int) -> float:
        """Seconds of a round, on the line through the nearest measured depths.

        Raises:
            ValueError: nothing was measured yet.
        """
        if depth in self._seconds:
            return self._seconds[depth]
        known = sorted(self._seconds)
        if not known:
            raise ValueError("no round was measured yet")
        below = max((d for d in known if d < depth), default=known[0])
        above = min((d for d in known if d > depth), default=known[-1])
        if below > depth or above < depth:  # outside: go on with the slope of all that is known
            below, above = known[0], known[-1]
        return self._on_line(below, above, depth)

    def _on_line(self, below: int, above: int, depth: int) -> float:
        low, high = self._seconds[below], self._seconds[above]
        slope = (high - low) / (above - below) if above > below else 0.0
        if depth > above:
            return high + (depth - above) * max(0.0, slope)  # a deeper round is never cheaper
        return max(low + (depth - below) * slope, 0.1 * low)


class AcceptanceTable:
    """Share of drafts accepted at each position, given that all before it were."""

    def __init__(self, rates: Sequence[tuple[float, int]] = ()) -> None:
        self._rates = list(rates)

    @property
    def rates(self) -> list[tuple[float, int]]:
        """(rate, samples) of every position seen, the first position first."""
        return list(self._rates)

    @property
    def seen(self) -> int:
        """Positions with at least one sample."""
        return len(self._rates)

    def trusted(self, depth: int) -> bool:
        """Whether every position down to `depth` has enough samples."""
        return depth <= self.seen and all(n >= TRUSTED for _, n in self._rates[:depth])

    def record(self, outcomes: Sequence[bool]) -> None:
        """Counts one round: an entry for each position reached, in order."""
        for position, accepted in enumerate(outcomes):
            if position == len(self._rates):
                self._rates.append((0.0, 0))
            rate, samples = self._rates[position]
            weight = max(_RATE_WEIGHT, 1 / (samples + 1))
            self._rates[position] = (rate + weight * (accepted - rate), samples + 1)

    def committed(self, depth: int) -> float:
        """Tokens a round of this depth is expected to add."""
        total, reach, rate = 1.0, 1.0, _OPTIMISM
        for position in range(depth):
            rate = self._estimate(position, rate)
            reach *= rate
            total += reach
        return total

    def _estimate(self, position: int, shallower: float) -> float:
        """A rate with few samples leans on that of the position before it."""
        if position >= len(self._rates):
            return shallower
        rate, samples = self._rates[position]
        if samples >= TRUSTED:
            return rate
        return (rate * samples + shallower * _PRIOR_SAMPLES) / (samples + _PRIOR_SAMPLES)


def _averaged(average: float, sample: float) -> float:
    bound = _COST_CLAMP * average
    return average + _COST_WEIGHT * max(-bound, min(bound, sample - average))
