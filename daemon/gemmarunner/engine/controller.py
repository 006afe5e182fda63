"""Keeps what was learned of depths apart by kind of request and number of sequences in a round."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from gemmarunner.engine.depth_state import Learned, dump, parse
from gemmarunner.engine.estimates import AcceptanceTable, CostTable
from gemmarunner.engine.track import DepthTrack

Outcomes = Sequence[tuple["Regime", Sequence[bool]]]


class Regime(StrEnum):
    """Kinds of request whose drafts fare differently."""

    GREEDY = "greedy"
    SAMPLED = "sampled"
    CONSTRAINED = "constrained"  # the text so far bends the choice: penalties


class DepthController:
    """Chooses draft depths from what rounds took and brought.

    How many drafts are accepted depends on the kind of request; what a round takes depends on that
    and on how many sequences share it, so costs are kept by width: 1, 2, 4, 8, ... One instance
    serves all requests of an engine. It reads no clock: times come with `record`.
    """

    def __init__(self, max_depth: int) -> None:
        self.max_depth = max_depth
        self._acceptance = {regime: AcceptanceTable() for regime in Regime}
        self._tracks: dict[tuple[Regime, int], DepthTrack] = {}

    def choose(
        self, width: int, limits: Mapping[Regime, int], deepest: int | None = None
    ) -> dict[Regime, int]:
        """The depth, at most its limit, of each kind in the next round of `width` sequences.

        `deepest`: what rounds of that width permit, if less than the greatest depth.
        """
        top = self.max_depth if deepest is None else min(deepest, self.max_depth)
        return {
            regime: self._track(regime, width).choose(limit, top)
            for regime, limit in limits.items()
        }

    def record(self, width: int, deepest: int, outcomes: Outcomes, seconds: float) -> None:
        """Learns from a round that drafted `deepest` tokens at most.

        `outcomes`: of each sequence, which drafts were accepted, up to the first that was not.
        """
        seen: dict[Regime, Sequence[bool]] = {}
        for regime, accepted in outcomes:
            assert len(accepted) <= deepest, (accepted, deepest)
            self._acceptance[regime].record(accepted)
            if regime not in seen or len(accepted) > len(seen[regime]):
                seen[regime] = accepted
        for regime, accepted in seen.items():
            self._track(regime, width).record(deepest, accepted, seconds)

    def selected(self, regime: Regime, width: int = 1) -> int:
        """The depth thought best, probes aside."""
        return self._track(regime, width).selected

    def rate(self, regime: Regime, depth: int, width: int = 1) -> float:
        """Expected tokens per second of one sequence at `depth`.

        Raises:
            ValueError: no round was measured yet.
        """
        return self._track(regime, width).rate(depth)

    def trusted(self, regime: Regime, depth: int) -> bool:
        """Whether all acceptance rates down to `depth` have enough samples."""
        return self._acceptance[regime].trusted(depth)

    def state(self) -> dict[str, object]:
        """What was learned, as JSON values; `depth_state` draws the format."""
        learned = {
            regime.value: Learned({}, table.rates) for regime, table in self._acceptance.items()
        }
        for (regime, width), track in sorted(self._tracks.items()):
            if track.costs.seconds:
                learned[regime.value].seconds[width] = track.costs.seconds
        return dump(learned)

    def restore(self, state: Mapping[str, object]) -> None:
        """Goes on from what `state()` gave earlier; figures beyond `max_depth` are dropped.

        Raises:
            ValueError: not such a state; nothing is changed.
        """
        learned = parse(state)
        for regime in Regime:
            if regime.value not in learned:
                continue
            figures = learned[regime.value]
            self._acceptance[regime] = AcceptanceTable(figures.rates[: self.max_depth])
            for width, seconds in figures.seconds.items():
                self._tracks[regime, width] = self._new_track(regime, seconds)

    def _track(self, regime: Regime, width: int) -> DepthTrack:
        bucket = 1 << (width - 1).bit_length()
        track = self._tracks.get((regime, bucket))
        if track is None:
            track = self._new_track(regime, self._nearest_costs(regime, bucket))
            self._tracks[regime, bucket] = track
        return track

    def _new_track(self, regime: Regime, seconds: Mapping[int, float]) -> DepthTrack:
        kept = {d: s for d, s in seconds.items() if d <= self.max_depth}
        return DepthTrack(self.max_depth, CostTable(kept), self._acceptance[regime])

    def _nearest_costs(self, regime: Regime, bucket: int) -> dict[int, float]:
        """The costs of the nearest width: their proportions are a start, the first round corrects
        their size."""
        known = [w for r, w in self._tracks if r is regime and self._tracks[r, w].costs.seconds]
        if not known:
            return {}
        nearest = min(known, key=lambda w: abs(w.bit_length() - bucket.bit_length()))
        return self._tracks[regime, nearest].costs.seconds
