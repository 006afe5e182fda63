"""Keeps one depth choice for greedy and one for sampled requests, for all requests of an engine."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from gemmarunner.engine.depth_state import Learned, dump, parse
from gemmarunner.engine.estimates import AcceptanceTable, CostTable
from gemmarunner.engine.track import DepthTrack


class Regime(StrEnum):
    """Kinds of request whose drafts fare differently."""

    GREEDY = "greedy"
    SAMPLED = "sampled"


class DepthController:
    """Chooses draft depths from what rounds of each regime took and brought.

    One instance serves all requests of an engine. It reads no clock: times come with `record`.
    """

    def __init__(self, max_depth: int) -> None:
        self.max_depth = max_depth
        self._tracks = {
            regime: DepthTrack(max_depth, CostTable(), AcceptanceTable()) for regime in Regime
        }

    def choose(self, regime: Regime, limit: int) -> int:
        """The depth of the next round, at most `limit` and `max_depth`."""
        return self._tracks[regime].choose(min(limit, self.max_depth))

    def record(self, regime: Regime, depth: int, outcomes: Sequence[bool], seconds: float) -> None:
        """Learns from a round: which drafts were accepted, up to the first that was not."""
        assert all(outcomes[:-1]), outcomes
        assert len(outcomes) <= depth, (outcomes, depth)
        self._tracks[regime].record(depth, outcomes, seconds)

    def selected(self, regime: Regime) -> int:
        """The depth thought best, probes aside."""
        return self._tracks[regime].selected

    def rate(self, regime: Regime, depth: int) -> float:
        """Expected tokens per second at `depth`.

        Raises:
            ValueError: no round was measured yet.
        """
        return self._tracks[regime].rate(depth)

    def trusted(self, regime: Regime, depth: int) -> bool:
        """Whether all acceptance rates down to `depth` have enough samples."""
        return self._tracks[regime].acceptance.trusted(depth)

    def state(self) -> dict[str, object]:
        """What was learned, as JSON values; `depth_state` draws the format."""
        return dump(
            {
                regime.value: Learned(track.costs.seconds, track.acceptance.rates)
                for regime, track in self._tracks.items()
            }
        )

    def restore(self, state: Mapping[str, object]) -> None:
        """Goes on from what `state()` gave earlier; figures beyond `max_depth` are dropped.

        Raises:
            ValueError: not such a state; nothing is changed.
        """
        learned = parse(state)
        for regime in Regime:
            if regime.value in learned:
                self._tracks[regime] = self._track(learned[regime.value])

    def _track(self, learned: Learned) -> DepthTrack:
        seconds = {d: s for d, s in learned.seconds.items() if d <= self.max_depth}
        rates = learned.rates[: self.max_depth]
        return DepthTrack(self.max_depth, CostTable(seconds), AcceptanceTable(rates))
