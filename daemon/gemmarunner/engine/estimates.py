"""What drafting has cost and brought so far: averages that follow changes and bear outliers."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

_COST_WEIGHT = 0.05  # of a new sample, once there are twenty
_COST_CLAMP = 0.25  # one sample moves an average at most this share times the weight
_SETTLING = 5  # a depth's first samples take their median: a hiccup leaves no trace
_COMMON_AFTER = 10  # samples of a depth after which half of its surprises are taken for everyone's
_TRUSTED_COST = 20  # samples beyond which a depth's average has no more say against another's
_SLOPE_UNKNOWN = 0.08  # of a round without drafts, for each draft more, before two depths are known

TRUSTED: Final = 10  # samples after which an acceptance rate is called known
_OPTIMISM = 0.75  # acceptance of a first position never seen
_PRIOR_SAMPLES = 2.0
_LEAN_SAMPLES = 1.0  # so many samples' worth a position leans on the one before it
_STANDS_ALONE = 20  # samples that need no leaning on anything
_MEMORY = 60  # samples an average reaches back
_OF_EARLIER_TEXTS = 15  # samples that what an earlier process learned is worth: it read other texts
_RECENT_WEIGHT = 0.15
_SURPRISE = 3.5  # standard deviations between recent and average that mean a change
_CHANGE = _SURPRISE**2 * _RECENT_WEIGHT / (2 - _RECENT_WEIGHT)  # in variances of one outcome
_AFTER_CHANGE = 6  # samples an average is worth after a change
_FORGET = 0.97  # what a position's samples are worth after a round that did not reach it


class CostTable:
    """Seconds a whole round takes at each depth.

    A longer context or a busy machine makes all depths dearer alike, but only the depth in use
    shows it. So once a depth is well known, a surprise at it moves all others too, and a depth
    tried now and then is compared with the present, not with when it was last tried.
    """

    def __init__(self, seconds: Mapping[int, float] | None = None) -> None:
        self._seconds = dict(seconds or {})
        self._samples: dict[int, int] = {}  # of this process; older figures yield to the first
        self._settling: dict[int, list[float]] = {}

    @property
    def seconds(self) -> dict[int, float]:
        """The average of every depth measured."""
        return dict(sorted(self._seconds.items()))

    @property
    def deepest(self) -> int:
        """The greatest depth measured; there is one."""
        return max(self._seconds)

    def record(self, depth: int, seconds: float) -> None:
        """Counts a round."""
        if seconds <= 0:
            return
        count = self._samples.get(depth, 0)
        self._samples[depth] = count + 1
        before = self._seconds.get(depth)
        if count < _SETTLING:
            self._settle(depth, seconds)
        elif before is not None:
            self._follow(depth, seconds / before, count)

    def samples(self, depth: int) -> int:
        """Rounds counted at this depth by this process."""
        return self._samples.get(depth, 0)

    def knows(self, depth: int) -> bool:
        """Whether this depth was measured, now or earlier."""
        return depth in self._seconds

    def estimate(self, depth: int) -> float:
        """Seconds of a round at `depth`; see `estimates`."""
        return self.estimates(depth)[depth]

    def estimates(self, deepest: int) -> list[float]:
        """Seconds of a round at 0 to `deepest`, on lines through the depths measured.

        No round is thought dearer than one that drafts more.

        Raises:
            ValueError: nothing was measured yet.
        """
        if not self._seconds:
            raise ValueError("no round was measured yet")
        weights = {depth: max(1, min(n, _TRUSTED_COST)) for depth, n in self._samples.items()}
        known = [(d, s, weights.get(d, 1)) for d, s in sorted(self._seconds.items())]
        return _on_lines(_never_falling(known), deepest)

    def _settle(self, depth: int, seconds: float) -> None:
        """Takes the median so far; older figures of other depths move in proportion.

        So much slower is the machine now than when they were made.
        """
        first = self._settling.setdefault(depth, [])
        first.append(seconds)
        first.sort()
        median = first[(len(first) - 1) // 2]
        ratio = median / self._seconds.get(depth, median)
        for other in self._seconds:
            if other not in self._settling:
                self._seconds[other] *= ratio
        self._seconds[depth] = median

    def _follow(self, depth: int, ratio: float, count: int) -> None:
        weight = max(_COST_WEIGHT, 1 / (count + 1))
        change = 1 + weight * max(-_COST_CLAMP, min(_COST_CLAMP, ratio - 1))
        common = 1 + (change - 1) * count / (count + _COMMON_AFTER)
        own = self._seconds[depth] * change
        for other in self._seconds:
            self._seconds[other] *= common
        self._seconds[depth] = own


def _never_falling(known: list[tuple[int, float, int]]) -> list[tuple[int, float]]:
    """(depth, seconds, weight) with seconds that would fall replaced by their common average."""
    pools: list[list[float]] = []  # seconds, weight, how many depths
    for _, seconds, weight in known:
        pools.append([seconds, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            last, before = pools.pop(), pools.pop()
            total = last[1] + before[1]
            mean = (last[0] * last[1] + before[0] * before[1]) / total
            pools.append([mean, total, last[2] + before[2]])
    levels = [seconds for seconds, _, count in pools for _ in range(int(count))]
    return [(depth, level) for (depth, _, _), level in zip(known, levels, strict=True)]


def _on_lines(points: list[tuple[int, float]], deepest: int) -> list[float]:
    """Values at 0 to `deepest` of lines through `points`, whose values never fall."""
    (first, low), (last, high) = points[0], points[-1]
    slope = (high - low) / (last - first) if last > first else _SLOPE_UNKNOWN * low
    values: list[float] = []
    for (left, value), (right, next_value) in pairwise(points):
        step = (next_value - value) / (right - left)
        if not values:  # towards plain decoding, on the slope of all
            values = [max(value - (left - d) * slope, 0.1 * value) for d in range(left)]
        values += [value + step * index for index in range(right - left)]
    if not values:
        values = [max(low - (first - d) * slope, 0.1 * low) for d in range(first)]
    return (values + [high + slope * index for index in range(max(1, deepest - last + 1))])[
        : deepest + 1
    ]


class AcceptanceTable:
    """Share of drafts accepted at each position, given that all before it were."""

    def __init__(self, rates: Sequence[tuple[float, int]] = ()) -> None:
        self._rates = [rate for rate, _ in rates]
        self._samples = [samples for _, samples in rates]
        self._worth = [float(min(samples, _OF_EARLIER_TEXTS)) for samples in self._samples]
        self._recent = list(self._rates)
        self.changes = 0  # how often a rate jumped, or a position was seen for the first time

    @property
    def rates(self) -> list[tuple[float, int]]:
        """(rate, samples) of every position seen, the first position first."""
        return list(zip(self._rates, self._samples, strict=True))

    @property
    def seen(self) -> int:
        """Positions with at least one sample."""
        return len(self._rates)

    def trusted(self, depth: int) -> bool:
        """Whether every position down to `depth` has enough samples."""
        return depth <= self.seen and all(n >= TRUSTED for n in self._samples[:depth])

    def record(self, outcomes: Sequence[bool]) -> None:
        """Counts one round: an entry for each position reached, in order."""
        for position, accepted in enumerate(outcomes):
            if position == len(self._rates):
                self._append()
            self._count(position, accepted)
        if outcomes:  # a position not reached for long is as uncertain as one never seen
            for position in range(len(outcomes), len(self._worth)):
                self._worth[position] *= _FORGET

    def committed(self, deepest: int) -> list[float]:
        """Tokens that a round of each depth from 0 to `deepest` is expected to add."""
        total, reach, rate = 1.0, 1.0, _OPTIMISM
        tokens, prior = [1.0], _PRIOR_SAMPLES
        for position in range(deepest):
            if position < len(self._rates):  # few samples lean on the position before
                worth = self._worth[position]
                lean = max(prior * (1 - worth / _STANDS_ALONE), 1e-6)
                rate = (self._rates[position] * worth + rate * lean) / (worth + lean)
            prior = _LEAN_SAMPLES
            reach *= rate
            total += reach
            tokens.append(total)
        return tokens

    def _append(self) -> None:
        self.changes += 1
        self._rates.append(0.0)
        self._recent.append(0.0)
        self._samples.append(0)
        self._worth.append(0.0)

    def _count(self, position: int, accepted: bool) -> None:
        """Averages one outcome in.

        Another text, another rate: what came lately counts, what was before hardly.
        """
        worth = self._worth[position]
        weight = 1 / (worth + 1)
        rate = self._rates[position]
        rate += (accepted - rate) * weight
        recent = self._recent[position]
        recent += (accepted - recent) * max(_RECENT_WEIGHT, weight)
        self._samples[position] += 1
        worth = min(worth + 1, _MEMORY)
        if worth > _AFTER_CHANGE and (recent - rate) ** 2 > _CHANGE * (rate * (1 - rate) + 0.02):
            rate, worth = recent, _AFTER_CHANGE
            self.changes += 1
        self._rates[position], self._recent[position] = rate, recent
        self._worth[position] = worth
