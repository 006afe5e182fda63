"""The planner's nouns: budgets, what pairs hold of them, ways of loading, and steps; plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import compress
from typing import NamedTuple

from gemmad.core import ModelName

Takes = Mapping[str, int]  # bytes by budget; of PLACES, the number of pairs

PLACES = "places"
_NOTHING: Takes = {}
_SOON_S = 1.0  # of idleness, before which all are equally recent


class Kind(IntEnum):
    """What is given up, in the order in which it is asked for."""

    RECLAIM = 0
    SPARE = 1
    DETACH = 2
    STOP = 3
    DETACH_BUSY = 4
    DRAIN = 5  # a busy pair finishes its answers first


class Step(NamedTuple):
    """One thing that is given up."""

    kind: Kind
    name: ModelName | None = None  # None: the spare
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """One budget now."""

    id: str
    total: int
    free: int  # what every program together leaves
    reserve: int = 0
    pending: int = 0  # what loads under way may still take
    coming: int = 0  # what leaves already will give back
    soon: int = 0  # of `coming`: what no running answer holds up
    later: int = 0  # what loads under way could give back once they have ended

    @property
    def left(self) -> int:
        """What may be taken; below 0 it is overdrawn."""
        return self.free - self.reserve - self.pending


@dataclass(frozen=True, slots=True)
class Held:
    """A settled pair, and what it could give back."""

    name: ModelName
    is_busy: bool
    rest: Takes  # what only its end gives back
    drafter: Takes = field(default_factory=dict)  # none, or one that cannot leave now
    prefixes: Takes = field(default_factory=dict)
    last_used: float = 0.0
    reload_s: float = 1.0

    def value(self, now: float, nbytes: int) -> float:
        """What each of its bytes is worth: how soon it may be wanted, how long it would load."""
        return self.reload_s / (max(_SOON_S, now - self.last_used) * max(1, nbytes))

    @property
    def nbytes(self) -> int:
        """All that its end gives."""
        parts = sum(self.drafter.values()) + sum(self.prefixes.values())
        return parts + sum(self.rest.values()) - self.rest.get(PLACES, 0)

    def without(self, given: set[Kind]) -> "Held | None":
        """What is left of it when so much was given; None: it has gone."""
        if not given.isdisjoint((Kind.STOP, Kind.DRAIN)):
            return None
        detached = not given.isdisjoint((Kind.DETACH, Kind.DETACH_BUSY))
        return replace(
            self,
            drafter=_NOTHING if detached else self.drafter,
            prefixes=_NOTHING if Kind.RECLAIM in given else self.prefixes,
        )


@dataclass(frozen=True, slots=True)
class Way:
    """One way of loading a pair; `choice` is the caller's own."""

    takes: Takes
    rank: int = 0
    tier: int = 0
    choice: object = None


class Columns(NamedTuple):
    """What the pairs have of one budget, each in its place, and what all can give together."""

    prefixes: list[int]
    drafters: list[int]
    rests: list[int]
    most: int  # without the end of a busy pair
    most_drained: int


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision depends on; `columns` keeps what was asked for of it."""

    rooms: tuple[Room, ...]
    held: tuple[Held, ...] = ()
    spare: Takes = field(default_factory=dict)
    loading: frozenset[str] = frozenset()  # budgets that loads under way share
    now: float = 0.0
    columns: dict[str, Columns] = field(default_factory=dict, compare=False, repr=False)

    def room(self, id: str) -> Room | None:
        """The budget of that id."""
        return next((room for room in self.rooms if room.id == id), None)

    def of(self, budget: str) -> Columns:
        """What there is to be given of the budget."""
        if (known := self.columns.get(budget)) is None:
            known = self.columns[budget] = self._columns(budget)
        return known

    def _columns(self, budget: str) -> Columns:
        prefixes = [pair.prefixes.get(budget, 0) for pair in self.held]
        drafters = [pair.drafter.get(budget, 0) for pair in self.held]
        rests = [pair.rest.get(budget, 0) for pair in self.held]
        parts = self.spare.get(budget, 0) + sum(prefixes) + sum(drafters)
        idle = sum(compress(rests, [not pair.is_busy for pair in self.held]))
        return Columns(prefixes, drafters, rests, parts + idle, parts + sum(rests))

    def planned(self, way: Way, steps: Sequence[Step]) -> "Situation":
        """The same for whoever comes next: the way's memory is spoken for, and so are the steps."""
        kinds: dict[ModelName | None, set[Kind]] = {}
        for step in steps:
            kinds.setdefault(step.name, set()).add(step.kind)
        coming = _given(self, steps)
        rooms = tuple(
            replace(
                room,
                pending=room.pending + way.takes.get(room.id, 0),
                coming=room.coming + coming.get(room.id, 0),
                later=room.later + way.takes.get(room.id, 0),
            )
            for room in self.rooms
        )
        kept = (pair.without(kinds.get(pair.name, set())) for pair in self.held)
        spare = _NOTHING if None in kinds else self.spare
        held = tuple(pair for pair in kept if pair is not None)
        loading = self.loading | (way.takes.keys() - {PLACES})
        return replace(self, rooms=rooms, held=held, spare=spare, loading=loading, columns={})


def spread(nbytes: int, by: Takes) -> dict[str, int]:
    """So many bytes over budgets, as `by` is spread; the first has what is left over."""
    if not by:
        return {}
    total = max(1, sum(by.values()))
    first, *others = by
    told = {budget: nbytes * by[budget] // total for budget in others}
    return {first: nbytes - sum(told.values()), **told}


def _given(situation: Situation, steps: Sequence[Step]) -> dict[str, int]:
    """What the steps give of each budget."""
    pairs = {pair.name: pair for pair in situation.held}
    ended = {step.name for step in steps if step.kind in (Kind.STOP, Kind.DRAIN)}
    given: dict[str, int] = {}
    for step in steps:
        parts: tuple[Takes, ...] = ()
        if step.name is None:
            parts = (situation.spare,)
        elif step.name in ended:
            pair = pairs[step.name]
            whole = step.kind in (Kind.STOP, Kind.DRAIN)
            parts = (pair.rest, pair.drafter, pair.prefixes) if whole else ()
        elif step.kind is Kind.RECLAIM:
            parts = (spread(step.nbytes, pairs[step.name].prefixes),)
        else:
            parts = (pairs[step.name].drafter,)
        for part in parts:
            for budget, nbytes in part.items():
                given[budget] = given.get(budget, 0) + nbytes
    return given
