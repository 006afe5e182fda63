"""The residents and what happens to each of them, from its load to its end; acts through Effects.

    LOADING --loaded--> READY --drain--> DRAINING --rest, stop_by--> STOPPING --gone-->
       \\---------------- drain (a load is cut short) ------------------^

Every state but READY has a deadline, and so has all that is under way with a READY pair.
"""

import math
from collections.abc import Iterator, Sequence

from gemmad.core import ModelName
from gemmad.memory.readings import Machine
from gemmad.residency.budgets import Kind, Situation, Step
from gemmad.residency.effects import Effects
from gemmad.residency.fits import Fit
from gemmad.residency.resident import Drafter, Resident, State, Wanted
from gemmad.residency.rules import Rules
from gemmad.residency.seen import EventKind
from gemmad.residency.situation import Returning, returning, situation
from gemmad.wire import Measured

STOP_GRACE_S = 10.0  # an unload lets running answers finish for this long
DRAIN_LIMIT_S = 300.0  # a pair that must make room is stopped after this long
SETTLE_S = 15.0  # a runner has reclaimed, detached or attached by then
ALONE_S = 60.0  # one that did not is not asked again for so long


class Roster:
    """Who is in memory. Only the scheduler calls it."""

    def __init__(self, effects: Effects, rules: Rules) -> None:
        self._effects = effects
        self._rules = rules
        self._residents: dict[ModelName, Resident] = {}
        self._promised: dict[Resident, list[Returning]] = {}  # of those that are being stopped
        self._returning: list[Returning] = []  # of those that have gone
        self._machine: Machine | None = None  # as last read
        self.spare_bytes = 0

    def __iter__(self) -> Iterator[Resident]:
        return iter(tuple(self._residents.values()))

    def __len__(self) -> int:
        return len(self._residents)

    def get(self, name: ModelName) -> Resident | None:
        """The resident of that name."""
        return self._residents.get(name)

    def has(self, resident: Resident) -> bool:
        """Whether it is still here."""
        return self._residents.get(resident.wanted.name) is resident

    # --- one resident ---

    def load(self, wanted: Wanted, fit: Fit, keep_alive_s: float, now: float) -> Resident:
        """Its runner is on its way."""
        resident = Resident(wanted, keep_alive_s, now, fit, load_began=now)
        resident.slots = fit.setting.slots
        resident.load_by = now + self._rules.load_s
        if wanted.manifest.drafter is not None:
            resident.drafter = Drafter.ATTACHED if fit.setting.drafter else Drafter.DETACHED
            resident.drafter_why = "" if fit.setting.drafter else "memory has no room for it"
        self._residents[wanted.name] = resident
        numbers = {f"{budget}_bytes": float(nbytes) for budget, nbytes in fit.takes.items()}
        told = f"on {fit.where}" + (f": {fit.why}" if fit.why else "")
        self._effects.tell(EventKind.LOADING, wanted.name, told, numbers)
        self._effects.load(resident)
        return resident

    def drain(self, resident: Resident, stop_by: float, now: float, why: str) -> None:
        """It takes nothing new and is stopped when its answers have ended, or at `stop_by`."""
        if resident.state is State.STOPPING:
            return
        if resident.state is not State.DRAINING:
            self._effects.tell(EventKind.UNLOADING, resident.wanted.name, why)
        resident.stop_by = min(resident.stop_by, stop_by)
        loading = resident.runner is None
        resident.state = State.DRAINING
        if loading or not resident.users or now >= resident.stop_by:
            self.stop(resident, now)

    def stop(self, resident: Resident, now: float) -> None:
        """Its process is being ended."""
        if resident.state is State.STOPPING:
            return
        resident.state = State.STOPPING
        if self._machine is not None:
            self._promised[resident] = returning(resident, self._machine)
        self._effects.stop(resident)

    def rest(self, resident: Resident, now: float) -> None:
        """Nobody uses it, or somebody still does."""
        if resident.users:
            return
        if resident.state is State.DRAINING:
            self.stop(resident, now)
        elif resident.state is State.READY:
            resident.expires = now + resident.keep_alive_s

    def forget(self, resident: Resident, now: float) -> None:
        """It is gone."""
        if self.has(resident):
            del self._residents[resident.wanted.name]
        promised = self._promised.pop(resident, [])
        self._returning += [item.awaited(now) for item in promised]

    def attach(self, resident: Resident, now: float) -> None:
        """Its drafter is on its way back."""
        resident.drafter = Drafter.ATTACHING
        resident.drafter_moved = now
        self._under_way(resident, now)
        self._effects.attach(resident)

    def settled(
        self, resident: Resident, kind: Kind | None, measured: Measured | None, now: float
    ) -> None:
        """Something that was under way has ended; `kind`: what it gave, None: it took back."""
        self._over(resident)
        if kind is Kind.RECLAIM:
            resident.prefix_bytes = max(0, resident.prefix_bytes - resident.giving)
            resident.giving = 0
        elif kind is None and resident.drafter is Drafter.ATTACHING:
            resident.drafter, resident.drafter_why = Drafter.ATTACHED, ""
            resident.drafter_moved = now
            self._effects.tell(EventKind.ATTACHED, resident.wanted.name)
        elif resident.drafter is Drafter.DETACHING:
            resident.drafter, resident.drafter_moved = Drafter.DETACHED, now
        if measured is not None:
            self.measured(resident, measured)

    def attach_failed(self, resident: Resident, why: str, now: float, *, harmful: bool) -> None:
        """The drafter stays away: for a while, or for good where it did harm."""
        self._over(resident)
        if resident.drafter is Drafter.ATTACHING:
            resident.drafter = Drafter.SET_ASIDE if harmful else Drafter.DETACHED
            resident.drafter_why, resident.drafter_moved = why, now
            resident.left_alone_until = now + ALONE_S
            if harmful:
                self._effects.tell(EventKind.DRAFTER_SET_ASIDE, resident.wanted.name, why)

    def measured(self, resident: Resident, measured: Measured) -> None:
        """Its runner told what it takes."""
        resident.measured, resident.prefix_bytes = measured, measured.prefix_bytes

    def _under_way(self, resident: Resident, now: float) -> None:
        resident.under_way += 1
        resident.settles_by = now + SETTLE_S

    def _over(self, resident: Resident) -> None:
        resident.under_way = max(0, resident.under_way - 1)
        if not resident.under_way:
            resident.settles_by = math.inf

    # --- time ---

    def tick(self, now: float) -> list[Resident]:
        """Deadlines that have passed are kept; returns those whose load is late, still going."""
        for resident in self:
            if resident.idle and now >= resident.expires:
                self.drain(resident, now + STOP_GRACE_S, now, "its keep_alive has ended")
            elif resident.state is State.DRAINING and now >= resident.stop_by:
                self.stop(resident, now)
            if now >= resident.settles_by:
                self._give_up(resident, now)
        return [r for r in self if r.state is State.LOADING and now >= r.load_by]

    def next_time(self) -> float:
        """When `tick` has something to do; infinity when nothing is timed."""
        times = [resident.settles_by for resident in self]
        times += [resident.expires for resident in self if resident.idle]
        times += [resident.stop_by for resident in self if resident.state is State.DRAINING]
        times += [resident.load_by for resident in self if resident.state is State.LOADING]
        return min(times, default=math.inf)

    @property
    def is_returning(self) -> bool:
        """Whether memory of processes that have gone is still to come."""
        return bool(self._returning)

    def shift(self, seconds: float) -> None:
        """The machine slept for so long: no deadline came nearer meanwhile."""
        for resident in self:
            resident.last_used += seconds
            resident.expires += seconds
            resident.stop_by += seconds
            resident.load_by += seconds
            resident.settles_by += seconds
            resident.drafter_moved += seconds
            resident.left_alone_until += seconds

    def _give_up(self, resident: Resident, now: float) -> None:
        """What was asked of its runner did not happen: nothing is counted on."""
        resident.under_way, resident.settles_by, resident.giving = 0, math.inf, 0
        resident.left_alone_until = now + ALONE_S
        match resident.drafter:
            case Drafter.DETACHING:
                resident.drafter = Drafter.ATTACHED
            case Drafter.ATTACHING:
                resident.drafter = Drafter.DETACHED
                resident.drafter_why = f"it did not come back within {SETTLE_S:.0f} s"
            case _:
                pass

    # --- memory ---

    def read(self, machine: Machine, spare_bytes: int, now: float) -> None:
        """The machine was looked at."""
        self._machine = machine
        self.spare_bytes = spare_bytes
        self._returning = [r for r in self._returning if not r.is_back(machine, now)]

    def situation(self, machine: Machine, now: float) -> Situation:
        """What the planner decides by."""
        return situation(
            self._residents.values(),
            machine,
            self._returning,
            max_loaded=self._rules.max_loaded,
            reserve=self._rules.reserve,
            spare=self.spare_bytes,
            now=now,
        )

    def obey(self, steps: Sequence[Step], why: str, now: float) -> None:
        """Everybody gives what the plan says."""
        for step in steps:
            if step.name is None:
                self.spare_bytes = 0
                self._effects.drop_spare()
            else:
                self._give(step, self._residents[step.name], why, now)

    def _give(self, step: Step, resident: Resident, why: str, now: float) -> None:
        name = resident.wanted.name
        numbers = {"bytes": float(step.nbytes)}
        match step.kind:
            case Kind.RECLAIM:
                resident.giving = step.nbytes
                self._under_way(resident, now)
                self._effects.tell(EventKind.RECLAIMED, name, why, numbers)
                self._effects.reclaim(resident, step.nbytes)
            case Kind.DETACH | Kind.DETACH_BUSY:
                resident.drafter, resident.drafter_why = Drafter.DETACHING, why
                resident.drafter_moved = now
                self._under_way(resident, now)
                self._effects.tell(EventKind.DETACHED, name, why, numbers)
                self._effects.detach(resident)
            case Kind.STOP | Kind.DRAIN:
                resident.leaves_for_others = True
                self._effects.tell(EventKind.EVICTED, name, why, numbers)
                self.drain(resident, now + DRAIN_LIMIT_S, now, why)
