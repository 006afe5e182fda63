"""Chooses who gives what so that a budget is made up: in order, no more than is needed; pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gemmad.residency.budgets import PLACES, Held, Kind, Situation, Step, Takes


class _Offer(NamedTuple):
    kind: Kind
    held: Held | None  # None: the spare
    gives: Takes


def _offers(
    situation: Situation, kinds: Sequence[Kind], budgets: Sequence[str]
) -> Iterator[_Offer]:
    """What can be given, in the order in which it is asked for."""
    oldest = sorted(situation.held, key=lambda pair: pair.last_used)
    for kind in kinds:
        match kind:
            case Kind.RECLAIM:
                yield from (_Offer(kind, pair, pair.prefixes) for pair in oldest)
            case Kind.SPARE:
                yield _Offer(kind, None, situation.spare)
            case Kind.DETACH | Kind.DETACH_BUSY:
                busy = kind is Kind.DETACH_BUSY
                pairs = (pair for pair in oldest if pair.is_busy is busy)
                yield from (_Offer(kind, pair, pair.drafter) for pair in pairs)
            case Kind.STOP | Kind.DRAIN:
                busy = kind is Kind.DRAIN
                able = [pair for pair in situation.held if pair.is_busy is busy]
                able.sort(key=lambda pair: pair.value(situation.now, budgets))
                yield from (_Offer(kind, pair, pair.rest) for pair in able)


def steps_for(
    situation: Situation, missing: Takes, kinds: Sequence[Kind], *, whole: bool = True
) -> tuple[Step, ...] | None:
    """The fewest of the first that give what is missing; None when they don't."""
    budgets = list(missing)
    if whole and any(most_of(situation, b, kinds) < missing[b] for b in budgets):
        return None
    gains = _Gains(budgets)
    for offer in _offers(situation, kinds, budgets):
        short = [b for b in budgets if gains.of(b) < missing[b]]
        if not short:
            break
        if any(gains.more(offer, b) > 0 for b in short):
            gains.take(offer)
    enough = all(gains.of(b) >= missing[b] for b in budgets)
    if not enough and whole:
        return None
    aim = {b: min(missing[b], gains.of(b)) for b in budgets}
    gains.prune(aim)
    return gains.steps(aim)


def most_of(situation: Situation, budget: str, kinds: Sequence[Kind]) -> int:
    """The budget's part of all that these kinds can give."""
    drains = Kind.DRAIN in kinds
    known = situation.most
    if (budget, drains) not in known:
        total = situation.spare.get(budget, 0)
        for pair in situation.held:
            total += pair.drafter.get(budget, 0) + pair.prefixes.get(budget, 0)
            total += pair.rest.get(budget, 0) if drains or not pair.is_busy else 0
        known[budget, drains] = total
    return known[budget, drains]


class _Gains:
    """Offers that were taken, and what they give together: a pair's end gives its parts too."""

    def __init__(self, budgets: Sequence[str]) -> None:
        self._budgets = budgets
        # By the object, not its name: a name's hash costs more than all else here.
        self._taken: dict[tuple[int, Kind], _Offer] = {}
        self._sums: dict[str, int] = {}

    def of(self, budget: str) -> int:
        return self._sums.get(budget, 0)

    def more(self, offer: _Offer, budget: str) -> int:
        """What the offer gives of the budget beyond what was taken."""
        held = offer.held
        if held is None:
            return offer.gives.get(budget, 0)
        if self._has(held, Kind.STOP) or self._has(held, Kind.DRAIN):
            return 0
        nbytes = offer.gives.get(budget, 0)
        if offer.kind in (Kind.STOP, Kind.DRAIN):
            detach = Kind.DETACH_BUSY if held.is_busy else Kind.DETACH
            nbytes += 0 if self._has(held, detach) else held.drafter.get(budget, 0)
            nbytes += 0 if self._has(held, Kind.RECLAIM) else held.prefixes.get(budget, 0)
        return nbytes

    def take(self, offer: _Offer) -> None:
        for budget in self._budgets:
            self._sums[budget] = self.of(budget) + self.more(offer, budget)
        self._taken[id(offer.held), offer.kind] = offer

    def prune(self, aim: Takes) -> None:
        """What is not needed for the aim is not taken; the dearest goes back first."""
        slack = {budget: self.of(budget) - aim[budget] for budget in aim}
        for key, offer in reversed(list(self._taken.items())):
            del self._taken[key]
            loss = {budget: self.more(offer, budget) for budget in aim}
            if all(slack[budget] >= loss[budget] for budget in aim):
                for budget in aim:
                    slack[budget] -= loss[budget]
                    self._sums[budget] -= loss[budget]
            else:
                self._taken[key] = offer
        self._taken = dict(reversed(self._taken.items()))  # each that stays was put at the end

    def steps(self, aim: Takes) -> tuple[Step, ...]:
        """In order; of prefixes, no more than is needed."""
        slack = {budget: self.of(budget) - aim[budget] for budget in aim}
        return tuple(self._step(offer, slack) for offer in self._taken.values())

    def _step(self, offer: _Offer, slack: dict[str, int]) -> Step:
        nbytes = sum(_whole(offer).values())
        spared = 0
        if offer.kind is Kind.RECLAIM:  # prefixes lie in one memory
            mine = [budget for budget in slack if offer.gives.get(budget, 0)]
            spared = min((slack[budget] for budget in mine), default=0)
            for budget in mine:
                slack[budget] -= spared
        return Step(offer.kind, offer.held.name if offer.held else None, nbytes - spared)

    def _has(self, held: Held, kind: Kind) -> bool:
        return (id(held), kind) in self._taken


def _whole(offer: _Offer) -> Takes:
    """All that an offer gives when nothing else was taken; a pair's end gives its parts too."""
    held = offer.held
    if held is None or offer.kind not in (Kind.STOP, Kind.DRAIN):
        return offer.gives
    parts = (offer.gives, held.drafter, held.prefixes)
    budgets = {budget for part in parts for budget in part if budget != PLACES}
    return {budget: sum(part.get(budget, 0) for part in parts) for budget in budgets}
