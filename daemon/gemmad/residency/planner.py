"""Decides how a pair is loaded and who gives up memory for it; pure: a situation in, a plan out.

Ways of loading come in tiers; a tier's ways are ranked, and those of one rank are equally good:
the same pair on one device or another. For each tier, best first:

  for each rank, best first:
    1. It fits into what is free beyond the reserve: it is loaded at once.
    2. It fits when those have gone or loaded who are on their way: it waits for them.
    3. It fits when others give something up. They give in this order, and nothing is taken that is
       not needed: prefix snapshots, the spare runner, idle drafters, idle pairs, busy drafters.
       While a load is under way that shares its memory, figures are not settled: it waits.
  for each rank, best first:
    4. It fits when busy pairs have finished their answers too: they take nothing new.
    5. It fits when those have gone again that are only being loaded: it waits for their loads.
6. Nothing of this is enough in any tier: it will not fit, and the numbers say why.

A budget is a memory, or the places that `max_loaded` allows. Without a newcomer the same steps
make up a budget's deficit (`relief`), but for 4 and 5.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from gemmad.residency.budgets import Kind, Situation, Step, Takes, Way
from gemmad.residency.gifts import most_of, steps_for


class Shortage(NamedTuple):
    """Why nothing fits: the numbers of the way that needs least."""

    budget: str
    needed: int
    free: int  # beyond the reserve
    evictable: int  # that all others could give back
    way: Way


class Plan(NamedTuple):
    """What to do: load `way` once `steps` are done; without steps and `waits`, at once."""

    way: Way | None
    steps: tuple[Step, ...] = ()
    waits: bool = False
    shortage: Shortage | None = None


_NOW = (Kind.RECLAIM, Kind.SPARE, Kind.DETACH, Kind.STOP, Kind.DETACH_BUSY)


def plan(situation: Situation, ways: Iterable[Way]) -> Plan:
    """See the module: the numbers are those of its tree. `ways` come sorted by tier and rank."""
    known: list[Way] = []
    for _, tier in groupby(ways, key=lambda way: way.tier):
        ranks = []
        for _, alike in groupby(tier, key=lambda way: way.rank):
            ranks.append(list(alike))
            if found := _now(situation, ranks[-1]):
                return found
        known += [way for rank in ranks for way in rank]
        for rank in ranks:
            if found := _cheapest(situation, rank, tuple(Kind)):  # 4
                return found
            if way := _after_loads(situation, rank):
                return Plan(way, waits=True)  # 5
    return Plan(None, shortage=_shortage(situation, known))  # 6


def relief(situation: Situation, need: Takes) -> tuple[Step, ...]:
    """Who gives what so that `need` more bytes come free; as much of it as can be had."""
    return steps_for(situation, need, _NOW, whole=False) or ()


def _now(situation: Situation, rank: Sequence[Way]) -> Plan | None:
    for way in rank:
        if not _missing(situation, way.takes, coming=False):
            return Plan(way)  # 1
    for way in rank:
        if not _missing(situation, way.takes, coming=True):
            return Plan(way, waits=True)  # 2
    found = _cheapest(situation, rank, _NOW)  # 3
    if found and found.way:
        missing = _missing(situation, found.way.takes, coming=True)
        if not situation.loading.isdisjoint(missing):
            return Plan(found.way, waits=True)
    return found


def _after_loads(situation: Situation, rank: Sequence[Way]) -> Way | None:
    rooms = tuple(replace(room, coming=room.coming + room.later) for room in situation.rooms)
    found = _cheapest(replace(situation, rooms=rooms), rank, tuple(Kind))
    return found.way if found else None


def _cheapest(situation: Situation, rank: Sequence[Way], kinds: Sequence[Kind]) -> Plan | None:
    plans = []
    for way in rank:
        missing = _missing(situation, way.takes, coming=True)
        if (steps := steps_for(situation, missing, kinds)) is not None:
            plans.append(Plan(way, steps))
    return min(plans, key=lambda p: _harm(situation, p.steps), default=None)


def _harm(situation: Situation, steps: Sequence[Step]) -> tuple[int, int]:
    """How bad the worst of the steps is, and how many are like it."""
    worst = max((step.kind for step in steps), default=Kind.RECLAIM)
    return worst, sum(step.kind == worst for step in steps)


def _missing(situation: Situation, takes: Takes, *, coming: bool) -> dict[str, int]:
    """What each budget lacks; a budget that is not there has nothing."""
    missing = {}
    for id, nbytes in takes.items():
        room = situation.room(id)
        left = 0 if room is None else room.left + (room.coming if coming else 0)
        if nbytes > left and nbytes > 0:
            missing[id] = nbytes - left
    return missing


def _shortage(situation: Situation, ways: Sequence[Way]) -> Shortage | None:
    """Of the way whose worst budget is least short."""
    most = {room.id: most_of(situation, room.id, tuple(Kind)) for room in situation.rooms}
    found = []
    for way in ways:
        for budget, missing in _missing(situation, way.takes, coming=True).items():
            room = situation.room(budget)
            free = 0 if room is None else max(0, room.left)
            evictable = most.get(budget, 0) + (0 if room is None else room.coming)
            shortage = Shortage(budget, way.takes[budget], free, evictable, way)
            found.append((missing - most.get(budget, 0), shortage))
    return min(found, key=lambda item: item[0], default=(0, None))[1]
