"""Chooses who gives what so that budgets are made up: in order, no more than is needed; pure.

A thousand pairs are asked within milliseconds. So a pair is its index here, and what pairs have of
a budget is a column; a kind's offers are taken at once up to where a budget is made up.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import NamedTuple

from gemmad.residency.budgets import PLACES, Kind, Situation, Step, Takes

_SPARE = 0  # the one index of its column
_ENDS = (Kind.STOP, Kind.DRAIN)
Column = list[int]  # bytes of one budget by pair


class _Taken(NamedTuple):
    """Whose offers of one kind were taken, in order; a pair's end gives its parts too."""

    kind: Kind
    pairs: list[int]
    gives: list[Column]  # by budget: what each offer gives beyond what was taken before it


def steps_for(
    situation: Situation, missing: Takes, kinds: Sequence[Kind], *, whole: bool = True
) -> tuple[Step, ...] | None:
    """The fewest of the first that give what is missing; None when they don't."""
    if whole and any(most_of(situation, b, kinds) < missing[b] for b in missing):
        return None
    gifts = _Gifts(situation, missing)
    for kind in kinds:
        if gifts.short:
            gifts.take(kind)
    if whole and gifts.short:
        return None
    slack = gifts.prune()
    return tuple(gifts.steps(slack))


def most_of(situation: Situation, budget: str, kinds: Sequence[Kind]) -> int:
    """The budget's part of all that these kinds can give."""
    columns = situation.of(budget)
    return columns.most_drained if Kind.DRAIN in kinds else columns.most


class _Gifts:
    """What was taken, and what is still short."""

    def __init__(self, situation: Situation, missing: Takes) -> None:
        self._situation = situation
        self._held = situation.held
        self._budgets = tuple(missing)
        self._columns = tuple(map(situation.of, missing))
        self._need = list(missing.values())  # below 0: more than was needed
        self._taken: list[_Taken] = []
        self._oldest: list[int] = []

    @property
    def short(self) -> list[int]:
        """The budgets that are not made up, by their place."""
        return [place for place, need in enumerate(self._need) if need > 0]

    def take(self, kind: Kind) -> None:
        """Every offer of the kind that gives of what is short, until nothing is."""
        order, gives = self._offers(kind)
        taken: list[int] = []
        while order and (short := self.short):
            useful = _useful(order, [gives[place] for place in short])
            cut = min(_reach(useful, gives[place], self._need[place]) for place in short)
            for place, column in enumerate(gives):
                self._need[place] -= sum(map(column.__getitem__, useful[:cut]))
            taken += useful[:cut]
            order = useful[cut:]
        if taken:
            self._taken.append(_Taken(kind, taken, gives))

    def prune(self) -> Column:
        """What is not needed is not taken, the dearest goes back first; what is left too much.

        A part is not needed when its pair ends. Its offer came before that of the end, so what an
        end gives is the same whichever parts go back after it.
        """
        slack = [max(0, -need) for need in self._need]
        ended: set[int] = set()
        for kind, pairs, gives in reversed(self._taken):
            kept = []
            for pair in reversed(pairs):
                if pair in ended and kind is not Kind.SPARE:
                    continue
                for place, column in enumerate(gives):
                    if column[pair] > slack[place]:
                        kept.append(pair)
                        break
                else:
                    slack = [left - gives[place][pair] for place, left in enumerate(slack)]
            if kind in _ENDS:
                ended.update(kept)
            pairs[:] = kept[::-1]
        return slack

    def steps(self, slack: Column) -> list[Step]:
        """In order; of prefixes, no more than is needed."""
        return [step for taken in self._taken for step in self._steps(taken, slack)]

    def _steps(self, taken: _Taken, slack: Column) -> list[Step]:
        kind, pairs, gives = taken
        if kind is Kind.SPARE:
            return [Step(kind, None, sum(self._situation.spare.values())) for _ in pairs]
        given = [self._held[index] for index in pairs]
        match kind:
            case Kind.RECLAIM:
                spared = [_spare(slack, gives, index) for index in pairs]
                told = [sum(pair.prefixes.values()) for pair in given]
                nbytes = [whole - more for whole, more in zip(told, spared, strict=True)]
            case Kind.DETACH | Kind.DETACH_BUSY:
                nbytes = [sum(pair.drafter.values()) for pair in given]
            case Kind.STOP | Kind.DRAIN:
                nbytes = [pair.nbytes for pair in given]
        return [Step(kind, pair.name, n) for pair, n in zip(given, nbytes, strict=True)]

    # --- what can be given, in the order in which it is asked for ---

    def _offers(self, kind: Kind) -> tuple[list[int], list[Column]]:
        """Whose, and what it gives of each budget."""
        match kind:
            case Kind.SPARE:
                return [_SPARE], [[self._situation.spare.get(b, 0)] for b in self._budgets]
            case Kind.RECLAIM:
                return self._by_age(), [columns.prefixes for columns in self._columns]
            case Kind.DETACH | Kind.DETACH_BUSY:
                busy = kind is Kind.DETACH_BUSY
                order = [index for index in self._by_age() if self._held[index].is_busy is busy]
                return order, [columns.drafters for columns in self._columns]
            case Kind.STOP | Kind.DRAIN:
                return self._by_value(busy=kind is Kind.DRAIN), self._by_ends()

    def _by_age(self) -> list[int]:
        if not self._oldest:
            used = [pair.last_used for pair in self._held]
            self._oldest = sorted(range(len(used)), key=used.__getitem__)
        return self._oldest

    def _by_value(self, *, busy: bool) -> list[int]:
        nbytes = [0] * len(self._held)
        for budget, columns in zip(self._budgets, self._columns, strict=True):
            if budget != PLACES:
                nbytes = list(map(add, nbytes, map(add, columns.rests, columns.drafters)))
        now = self._situation.now
        values = {
            index: pair.value(now, nbytes[index])
            for index, pair in enumerate(self._held)
            if pair.is_busy is busy
        }
        return sorted(values, key=values.__getitem__)

    def _by_ends(self) -> list[Column]:
        """What the end of each pair gives beyond its parts that were taken."""
        found = [
            list(map(add, columns.rests, map(add, columns.prefixes, columns.drafters)))
            for columns in self._columns
        ]
        for kind, pairs, gives in self._taken:
            if kind is not Kind.SPARE and kind not in _ENDS:
                for column, given in zip(found, gives, strict=True):
                    for index in pairs:
                        column[index] -= given[index]
        return found


def _useful(order: Sequence[int], columns: Sequence[Column]) -> list[int]:
    """Those that give of any of the columns."""
    if len(columns) == 1:
        (only,) = columns
        return [index for index in order if only[index] > 0]
    return [index for index in order if any(column[index] > 0 for column in columns)]


def _reach(order: Sequence[int], column: Column, need: int) -> int:
    """How many of the first make up the need; all, where they don't."""
    sums = list(accumulate(map(column.__getitem__, order)))
    return min(len(sums), bisect_left(sums, need) + 1)


def _spare(slack: Column, gives: Sequence[Column], pair: int) -> int:
    """Prefixes lie in one memory: what is more than enough of it stays, and is no slack then."""
    if not any(slack):
        return 0
    mine = [place for place, column in enumerate(gives) if column[pair]]
    spared = min(slack[place] for place in mine)
    for place in mine:
        slack[place] -= spared
    return spared
