"""Decides how many tokens to draft next: the depth with the most expected tokens per second.

Depth 0, plain decoding, is always a choice, so a useless drafter is parked. Numbered, `choose` is:

1. no room to draft: 0
2. depth 0 is measured first
3. a depth whose only sample so far surprises is looked at again: it may have been a hiccup
4. a probe, when what probing may cost has been saved up for it; not near the end of a request
5. the best depth; the last choice stays while it is within a few percent of the best

A probe costs what it takes longer than the best depth would for the tokens it brings. All probes
together may cost a small share of the time, and what a lucky one gains is saved for the next. So
they are frequent where they cost little, rare where they cost much, and become frequent by
themselves when a text turns predictable.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gemmarunner.engine.estimates import AcceptanceTable, CostTable

_BASE_ROUNDS = 2  # of depth 0 before anything is drafted
_FIRST_REACH = 4  # the deepest choice before any other depth was measured
_STAY = 0.985  # the last choice stays while it has this share of the best rate
_PROBING = 0.004  # share of the time that probes may cost
_SAVED_AT_FIRST = 1.0  # rounds of depth 0
_SAVED_AT_MOST = 3.0
_NEVER = 50  # rounds that a depth never tried seems to have waited
_LEAST_LOSS = 0.01  # share of a round; no probe is free, so that there is an order among them
_DOUBTFUL = 1.5  # times what was expected of a depth never measured
_REFRESH = 4  # rounds that expectations hold, once there were
_OVERDUE = 2  # rounds after which a probe that was not recorded is given up
_EARLY = 32  # rounds in which they are made anew each time


class _Probe(NamedTuple):
    depth: int
    after: int  # rounds recorded before it was chosen


class DepthTrack:
    """What rounds of one kind and width took, and the depth chosen for them."""

    def __init__(self, max_depth: int, costs: CostTable, acceptance: AcceptanceTable) -> None:
        self.max_depth = max_depth
        self.costs = costs
        self.acceptance = acceptance
        self.selected = 0
        self._known_before = costs.knows(0)
        self._saved: float | None = None  # seconds that probes may cost
        self._probe: _Probe | None = None  # under way
        self._again: int | None = None  # a depth to be measured a second time
        self._rounds = 0
        self._tried: dict[int, int] = {}  # depth -> round in which it last was
        self._tokens: list[float] = []  # expected of a round, its seconds and their quotient,
        self._seconds: list[float] = []  # by depth
        self._rates: list[float] = []
        self._reach = 0  # the deepest that was tried, and as much again
        self._fresh_until = 0  # the round in which they are made anew
        self._changes = -1  # of the acceptance when they were made
        if self._known_before:
            self.selected = self.best(max_depth)

    def choose(self, limit: int, deepest: int) -> int:
        """The depth of the next round, at most `limit`; `deepest` is what its width permits.

        The round before it may still be under way, and be recorded later.
        """
        limit = min(limit, deepest)
        if limit <= 0:  # 1
            return 0
        if not self._known_before and self.costs.samples(0) < _BASE_ROUNDS:  # 2
            return 0
        best = self.best(limit)
        if limit < deepest:
            return best
        self.selected = best
        again, self._again = self._again, None
        if again is not None and again <= deepest:  # 3
            return again
        if self._probe is None or self._rounds > self._probe.after + _OVERDUE:
            self._probe = self._affordable_probe(deepest)  # 4
            return best if self._probe is None else self._probe.depth
        return best  # 5

    def record(self, depth: int, outcomes: Sequence[bool], seconds: float) -> None:
        """Learns what a round took; `outcomes` are in the acceptance table already."""
        self.costs.record(depth, seconds)
        self._rounds += 1
        self._tried[depth] = self._rounds
        if depth != self.selected:  # a probe, or the end of a request
            self._fresh_until = 0
        if not self._seconds:
            return
        base = self._seconds[0]
        if self.costs.samples(depth) == 1 and seconds > _DOUBTFUL * self._seconds[depth]:
            self._again = depth
        if self._saved is None:
            self._saved = _SAVED_AT_FIRST * base
        self._saved += _PROBING * min(seconds, 4 * base)
        if self._probe is not None and depth == self._probe.depth:
            self._probe = None
            gained = (1 + sum(outcomes)) * self._seconds_per_token()
            self._saved -= max(self._seconds[depth] - gained, -base)
        self._saved = min(self._saved, _SAVED_AT_MOST * base)

    def rate(self, depth: int) -> float:
        """Expected tokens a second."""
        return self.acceptance.committed(depth)[depth] / self.costs.estimate(depth)

    def best(self, limit: int) -> int:
        """The depth up to `limit` to stay at; never one thought slower than depth 0."""
        self._refresh()
        reach = min(limit, self._reach)
        rates = self._rates[: reach + 1]
        top = max(rates)
        if self.selected <= reach and rates[self.selected] >= max(rates[0], _STAY * top):
            return self.selected
        return rates.index(top)

    def _refresh(self) -> None:
        """Makes the expectations anew where a text changed or some rounds have passed."""
        changes = self.acceptance.changes
        if self._rounds < self._fresh_until and changes == self._changes:
            return
        self._changes = changes
        self._fresh_until = self._rounds + _REFRESH if self._rounds > _EARLY else 0
        self._reach = min(self.max_depth, max(_FIRST_REACH, 2 * self.costs.deepest))
        self._tokens = self.acceptance.committed(self.max_depth)
        self._seconds = self.costs.estimates(self.max_depth)
        self._rates = [t / s for t, s in zip(self._tokens, self._seconds, strict=True)]

    def _seconds_per_token(self) -> float:
        return self._seconds[self.selected] / self._tokens[self.selected]

    def _affordable_probe(self, deepest: int) -> _Probe | None:
        """The depth most worth another look, if its price has been saved up.

        Worth grows with the rounds since it was last tried and falls with the price.
        """
        if self._saved is None:
            return None
        here, base, per_token = self.selected, self._seconds[0], self._seconds_per_token()
        best, worth, price = None, 0.0, 0.0
        least = _LEAST_LOSS * base
        for depth in (0, here - 2, here - 1, here + 1, here + 2):
            if depth < 0 or depth > deepest or depth == here:
                continue
            loss = max(self._seconds[depth] - self._tokens[depth] * per_token, least)
            waited = self._rounds - self._tried.get(depth, -_NEVER)
            if waited > worth * loss:
                best, worth, price = depth, waited / loss, loss
        if best is None or min(price, _SAVED_AT_MOST * base) > self._saved:
            return None
        return _Probe(best, self._rounds)
