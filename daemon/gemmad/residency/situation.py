"""What the planner is told: the last reading of the machine, and what residents hold; pure.

A pair that loads may still take all of its estimate. One that leaves gives back all it holds; a
device's memory is often free only a while after its process has gone, see `Returning`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gemmad.memory.readings import HOST, Budget, Machine
from gemmad.residency.budgets import PLACES, Held, Room, Situation, Takes
from gemmad.residency.fits import Fit
from gemmad.residency.resident import Drafter, Resident, State

MIB = 1 << 20
SPARE_BYTES = 300 * MIB  # of a prepared runner on the host
_RETURN_S = 5.0
_RETURNED = 0.75  # of what a process held: the rest may be shared

Reserve = int | None  # bytes of each memory that stay free; None: by its size


@dataclass(frozen=True, slots=True)
class Returning:
    """What a process that has gone has not given back to a device yet."""

    budget: str
    nbytes: int
    free_then: int  # at the last reading before it was stopped
    until: float = math.inf

    def awaited(self, now: float) -> "Returning":
        """The same for a process that has just gone."""
        return replace(self, until=now + _RETURN_S)

    def is_back(self, machine: Machine, now: float) -> bool:
        """The memory is free, or will not come any more."""
        free = next((b.free for b in machine.budgets if b.id == self.budget), math.inf)
        return now >= self.until or free >= self.free_then + _RETURNED * self.nbytes


def returning(resident: Resident, machine: Machine) -> list[Returning]:
    """What is to come of a resident that is stopped now. A host has its memory back at once."""
    free = {budget.id: budget.free for budget in machine.budgets}
    return [
        Returning(budget, nbytes, free[budget])
        for budget, nbytes in holds(resident).items()
        if budget != HOST and budget in free and nbytes
    ]


def reserve_of(budget: Budget, reserve: Reserve) -> int:
    """What stays free of it: by default 1/32 of a device, 1/16 of the host, within bounds."""
    if reserve is not None:
        return min(reserve, budget.total)
    if budget.id == HOST:
        return min(max(budget.total // 16, 256 * MIB), 2048 * MIB)
    return min(max(budget.total // 32, 256 * MIB), 1024 * MIB)


def holds(resident: Resident) -> dict[str, int]:
    """Bytes by budget that the end of the pair gives back: as measured, else as estimated."""
    if resident.fit is None:
        return {}
    measured = resident.measured
    if measured is None:
        return estimated(resident, resident.fit)
    takes: Takes = {told.device: told.nbytes for told in measured.devices}
    if not takes and measured.device_bytes:
        takes = {next(iter(resident.fit.takes)): measured.device_bytes}
    return {**takes, HOST: takes.get(HOST, 0) + measured.host_bytes}


def estimated(resident: Resident, fit: Fit) -> dict[str, int]:
    """What the pair takes by its estimate, with or without its drafter as it is now."""
    takes = dict(fit.takes)
    there = resident.drafter in (Drafter.ATTACHED, Drafter.ATTACHING)
    sign = 0 if there == fit.setting.drafter else 1 if there else -1
    for budget, nbytes in fit.drafter_takes.items():
        takes[budget] = max(0, takes.get(budget, 0) + sign * nbytes)
    return takes


def drafter_bytes(resident: Resident) -> Takes:
    """Bytes by budget of the drafter, wherever it is now."""
    if resident.fit is None or resident.drafter in (Drafter.ABSENT, Drafter.SET_ASIDE):
        return {}
    return resident.fit.drafter_takes


def prefixes_of(resident: Resident, nbytes: int) -> Takes:
    """So many bytes of kept prompts by budget: they lie where keys and values do."""
    if not nbytes:
        return {}
    return {HOST: nbytes} if resident.fit is None else resident.fit.spread(nbytes)


def situation(
    residents: Iterable[Resident],
    machine: Machine,
    coming_back: Sequence[Returning],
    *,
    max_loaded: int,
    reserve: Reserve,
    spare: int,
    now: float,
) -> Situation:
    """All that the planner may know."""
    told = _Told()
    for resident in residents:
        told.add(resident, now)
    for item in coming_back:
        told.comes({item.budget: item.nbytes})
    rooms = [
        Room(
            budget.id,
            budget.total,
            budget.free,
            reserve_of(budget, reserve),
            told.pending.get(budget.id, 0),
            told.coming.get(budget.id, 0),
            told.soon.get(budget.id, 0),
            told.later.get(budget.id, 0),
        )
        for budget in machine.budgets
    ]
    places = max_loaded - told.count
    coming, later = told.coming.get(PLACES, 0), told.later.get(PLACES, 0)
    rooms.append(Room(PLACES, max_loaded, places, coming=coming, later=later))
    return Situation(
        tuple(rooms), tuple(told.held), {HOST: spare} if spare else {}, frozenset(told.loading), now
    )


class _Told:
    """Sums over residents."""

    def __init__(self) -> None:
        self.count = 0
        self.pending: dict[str, int] = {}
        self.coming: dict[str, int] = {}
        self.soon: dict[str, int] = {}
        self.later: dict[str, int] = {}
        self.loading: set[str] = set()
        self.held: list[Held] = []

    def add(self, resident: Resident, now: float) -> None:
        self.count += 1
        fit = resident.fit
        if resident.leaving:
            self.comes({**holds(resident), PLACES: 1}, soon=not resident.users)
            if resident.runner is None:  # until it has gone, its load may go on
                self.more(self.pending, holds(resident))
        elif resident.state is State.LOADING:
            takes: Takes = {} if fit is None else fit.takes
            self.more(self.pending, takes)
            self.more(self.later, {**takes, PLACES: 1})
            self.loading.update(takes)
        elif resident.usable:
            self._ready(resident, now)

    def _ready(self, resident: Resident, now: float) -> None:
        drafter = drafter_bytes(resident)
        attached = resident.drafter is Drafter.ATTACHED
        if resident.drafter is Drafter.ATTACHING:
            self.more(self.pending, drafter)
            self.more(self.later, drafter)
            self.loading.update(drafter)
        elif resident.drafter is Drafter.DETACHING:
            self.comes(drafter)
        whole, unborn = holds(resident), _unborn(resident)
        self.more(self.pending, unborn)
        self.comes(prefixes_of(resident, resident.giving))
        prefixes = prefixes_of(resident, resident.prefix_bytes)
        rest = _minus(_minus(whole, drafter if attached else {}), prefixes)
        can_give = resident.settled and now >= resident.left_alone_until
        self.held.append(
            Held(
                resident.wanted.name,
                bool(resident.users),
                {**rest, HOST: rest.get(HOST, 0) + unborn.get(HOST, 0), PLACES: 1},
                drafter if attached and can_give else {},
                prefixes if can_give else {},
                resident.last_used,
                resident.reload_s,
            )
        )

    def comes(self, takes: Takes, *, soon: bool = True) -> None:
        self.more(self.coming, takes)
        if soon:
            self.more(self.soon, takes)

    @staticmethod
    def more(sums: dict[str, int], takes: Takes) -> None:
        for budget, nbytes in takes.items():
            sums[budget] = sums.get(budget, 0) + nbytes


def _minus(takes: Takes, part: Takes) -> dict[str, int]:
    return {budget: max(0, nbytes - part.get(budget, 0)) for budget, nbytes in takes.items()}


def _unborn(resident: Resident) -> dict[str, int]:
    """A host gives pages only when they are touched: what the estimate has beyond them."""
    if resident.measured is None or resident.fit is None:
        return {}
    told = estimated(resident, resident.fit).get(HOST, 0)
    return {HOST: max(0, told - resident.measured.host_bytes)}
