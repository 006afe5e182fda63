"""Decides how many tokens to draft next: the depth with the most expected tokens per second.

Depth 0, plain decoding, is always a choice, so a useless drafter is parked. Numbered, `choose` is:

1. no room to draft: 0
2. depth 0 and then a shallow depth are measured first
3. near the end of a request (less room than the maximum): the best that fits, nothing learned
4. a probe under way goes on; it lasts two rounds, since the first at a new depth is not timed
5. the best depth; the last choice stays while it is within a few percent of the best
6. now and then, less and less often while nothing changes, a probe of another depth
"""

from collections.abc import Sequence
from typing import NamedTuple

from gemmarunner.engine.estimates import AcceptanceTable, CostTable

_FIRST = (0, 2)  # depths measured before anything is decided
_REACH = 2  # how far beyond the deepest position seen a choice may go
_STAY = 0.97  # the last choice stays while it has this share of the best rate
_PROBE_ROUNDS = 2
_PROBE_EVERY = 4  # rounds between probes at first; doubles up to
_PROBE_SELDOM = 512
_PROBE_UNSURE = 16  # and up to this while the next deeper position is not known well


class _Probe(NamedTuple):
    depth: int
    rounds_left: int
    all_accepted: bool


class DepthTrack:
    """What was learned from the rounds of one kind of request, and the depth chosen for it."""

    def __init__(self, max_depth: int, costs: CostTable, acceptance: AcceptanceTable) -> None:
        self.max_depth = max_depth
        self.costs = costs
        self.acceptance = acceptance
        first_known = all(costs.knows(d) for d in _FIRST if d <= max_depth)
        self.selected = 0
        self._probe: _Probe | None = None
        self._probes = 0
        self._interval = _PROBE_EVERY
        self._rounds_to_probe = _PROBE_EVERY
        if first_known:
            self.selected = self.best(max_depth)

    def choose(self, limit: int) -> int:
        """The depth of the next round, at most `limit`."""
        first = next((d for d in _FIRST if d <= self.max_depth and not self.costs.knows(d)), None)
        if limit <= 0:  # 1
            return 0
        if first is not None:  # 2
            return first if first <= limit else 0
        if limit < self.max_depth:  # 3
            return self.best(limit)
        if self._probe is None:  # 5
            self._select()
            self._rounds_to_probe -= 1
            if self._rounds_to_probe <= 0:  # 6
                self._start_probe()
        return self.selected if self._probe is None else self._probe.depth  # 4

    def record(self, depth: int, outcomes: Sequence[bool], seconds: float) -> None:
        """Learns from a round: which drafts were accepted, up to the first that was not."""
        self.costs.record(depth, seconds)
        self.acceptance.record(outcomes)
        probe = self._probe
        if probe is None or depth != probe.depth:
            return
        full = probe.all_accepted and all(outcomes)
        self._probe = _Probe(depth, probe.rounds_left - 1, full)
        if self._probe.rounds_left == 0:
            self._end_probe(full)

    def rate(self, depth: int) -> float:
        """Expected tokens a second."""
        return self.acceptance.committed(depth) / self.costs.estimate(depth)

    def best(self, limit: int) -> int:
        """The depth up to `limit` to stay at; never one thought slower than depth 0."""
        reach = min(limit, self.max_depth, self.acceptance.seen + _REACH)
        rates = [self.rate(depth) for depth in range(reach + 1)]
        best = max(range(reach + 1), key=rates.__getitem__)
        stays = self.selected <= reach and rates[self.selected] >= rates[0]
        if stays and rates[self.selected] >= _STAY * rates[best]:
            return self.selected
        return best

    def _select(self) -> bool:
        """Whether the choice changed."""
        before, self.selected = self.selected, self.best(self.max_depth)
        if before != self.selected:
            self._wait(_PROBE_EVERY)
        return before != self.selected

    def _start_probe(self) -> None:
        here = self.selected
        around = (here + 1, here - 1, 0) if here else (1, 2)
        depths = [d for d in dict.fromkeys(around) if 0 <= d <= self.max_depth and d != here]
        self._probe = _Probe(depths[self._probes % len(depths)], _PROBE_ROUNDS, True)
        self._probes += 1

    def _end_probe(self, all_accepted: bool) -> None:
        parked = self.selected == 0
        self._probe = None
        if self._select():
            return
        if parked and all_accepted:  # the text may have become predictable: look again soon
            self._wait(_PROBE_EVERY)
            return
        sure = self.acceptance.trusted(min(self.selected + 1, self.max_depth))
        self._wait(min(2 * self._interval, _PROBE_SELDOM if sure else _PROBE_UNSURE))

    def _wait(self, rounds: int) -> None:
        self._interval = self._rounds_to_probe = rounds
