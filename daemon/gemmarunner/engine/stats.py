"""Counts what drafting did for one request."""

from collections.abc import Sequence

from gemmarunner.engine.request import DraftStats


class DraftLedger:
    """The rounds of one request; what lies after an end-of-sequence token never counts."""

    def __init__(self) -> None:
        self._depth = 0
        self._rounds = 0
        self._drafted = 0
        self._added = 0
        self._reached: list[int] = []
        self._accepted: list[int] = []

    def record(self, depth: int, *, drafted: int, outcomes: Sequence[bool], added: int) -> None:
        """Counts a round at `depth` that added `added` tokens to the text.

        `outcomes` says of each draft up to the first rejected one whether it was accepted.
        """
        self._depth = depth
        self._rounds += 1
        self._drafted += drafted
        self._added += added
        new = len(outcomes) - len(self._reached)
        self._reached += [0] * new
        self._accepted += [0] * new
        for position, accepted in enumerate(outcomes):
            self._reached[position] += 1
            self._accepted[position] += accepted

    def stats(self) -> DraftStats:
        """The figures as an answer carries them."""
        pairs = list(zip(self._reached, self._accepted, strict=True))
        return DraftStats(
            depth=self._depth,
            rounds=self._rounds,
            drafted=self._drafted,
            accepted=sum(self._accepted),
            per_position=tuple(round(accepted / reached, 4) for reached, accepted in pairs),
            tokens_per_round=round(self._added / self._rounds, 4) if self._rounds else 0.0,
            positions=tuple(pairs),
        )
