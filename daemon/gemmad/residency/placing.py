"""Finds room for the pairs that requests wait for, one after the other, by the planner's word.

Whoever comes later is planned around those who came earlier, so that nobody takes what another one
waits for. After a load that ran out of memory everything idle leaves, and it is tried once more
without its drafter.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum
from functools import partial

from gemmad.api.errors import GemmaError, LoadFailed, RunnerCrashed, WillNotFit
from gemmad.core import ModelName
from gemmad.memory.readings import Machine
from gemmad.residency.breaker import CrashBreaker
from gemmad.residency.budgets import PLACES, Kind, Situation, Step, Way
from gemmad.residency.dealing import levels
from gemmad.residency.drafters import SetAside
from gemmad.residency.effects import Effects
from gemmad.residency.fits import Fit, Rooms
from gemmad.residency.planner import Plan, Shortage, plan, relief
from gemmad.residency.queue import WaitingQueue
from gemmad.residency.reloads import Reloads
from gemmad.residency.resident import Drafter, Resident, Waiter, Wanted
from gemmad.residency.roster import Roster
from gemmad.residency.rules import Rules
from gemmad.residency.seen import EventKind

MIB = 1 << 20


class WaysOf:
    """How a pair can be loaded on a machine; pure."""

    def __init__(
        self,
        ways: Callable[[Wanted, Machine, Rooms], Iterable[Way]],
        unusable: Callable[[Machine], str] = lambda _: "",
    ) -> None:
        self.ways = ways
        self.unusable = unusable  # why there is no device at all; empty: there is one


class _AfterOom(Enum):
    FREEING = 1
    AGAIN = 2


class Placer:
    """Only the scheduler calls it."""

    def __init__(
        self,
        roster: Roster,
        queue: WaitingQueue,
        set_aside: SetAside,
        reloads: Reloads,
        breaker: CrashBreaker,
        effects: Effects,
        rules: Rules,
        ways: WaysOf,
    ) -> None:
        self._roster = roster
        self._queue = queue
        self._set_aside = set_aside
        self._reloads = reloads
        self._breaker = breaker
        self._effects = effects
        self._rules = rules
        self._ways = ways
        self._kept: dict[ModelName, float] = {}  # keep_alive of a pair that reloads
        self._after_oom: dict[ModelName, _AfterOom] = {}

    def keep(self, name: ModelName, keep_alive_s: float) -> None:
        """The pair's next load begins with this keep_alive."""
        self._kept[name] = keep_alive_s

    def loaded(self, resident: Resident) -> None:
        """Its want of memory is over."""
        self._after_oom.pop(resident.wanted.name, None)

    def tries_again(self, resident: Resident, error: GemmaError) -> bool:
        """Whether a load that failed for want of memory is tried once more."""
        name = resident.wanted.name
        if not _is_of_memory(error):
            self._after_oom.pop(name, None)
            return False
        if self._after_oom.pop(name, None) is _AfterOom.AGAIN:
            return False
        self._after_oom[name] = _AfterOom.FREEING
        return True

    @staticmethod
    def told(resident: Resident, error: GemmaError, machine: Machine | None) -> GemmaError:
        """The error of a load that is not tried again; for want of memory it says the numbers."""
        if not _is_of_memory(error) or resident.fit is None:
            return error
        numbers = _estimated(resident.fit, machine)
        fix = "Use a smaller or packed variant or a smaller num_ctx, or free memory others hold."
        return WillNotFit(f"{error.message} {numbers}", fix=fix)

    def cannot_grow(
        self, waiter: Waiter, resident: Resident, machine: Machine, now: float
    ) -> WillNotFit | None:
        """Why the pair would have no larger context if it were loaded again: others hold the room.

        Nobody else leaves for it.
        """
        kind = Kind.DRAIN if resident.users else Kind.STOP
        situation = self._roster.situation(machine, now)
        after = situation.planned(Way({}), (Step(kind, resident.wanted.name),))
        wanted = self._wanted(waiter.wanted)
        found = plan(after, self._ways.ways(wanted, machine, partial(levels, after)))
        if found.way is not None and not found.steps:
            return None
        return WillNotFit(
            f"memory has no room to give model '{wanted.name.short}' a context of more than "
            f"{wanted.more_than} tokens."
        )

    def place(self, machine: Machine, now: float) -> None:
        """Every pair that is waited for is loaded, or on its way to be, or refused."""
        situation = self._roster.situation(machine, now)
        seen: set[ModelName] = set()
        for waiter in self._queue.ordered(now):
            name = waiter.wanted.name
            if name in seen or waiter not in self._queue or self._roster.get(name):
                continue
            if refusal := self._refusal(name, machine, now):
                self._refuse(waiter, refusal)
                continue
            if not self._is_freeing(name, situation, now):
                situation = self._one(waiter, machine, situation, now)
            if waiter in self._queue:  # else the next one may want less
                seen.add(name)

    def _one(self, waiter: Waiter, machine: Machine, situation: Situation, now: float) -> Situation:
        wanted = self._wanted(waiter.wanted)
        found = plan(situation, self._ways.ways(wanted, machine, partial(levels, situation)))
        if found.way is None:
            self._refuse_alike(waiter, _will_not_fit(wanted, found.shortage))
        elif found.steps or found.waits:
            why = f"to make room for {wanted.name.short}"
            self._roster.obey(found.steps, why, now)
            return situation.planned(found.way, found.steps)
        else:
            self._load(wanted, found, now)
            return situation.planned(found.way, ())
        return situation

    def _load(self, wanted: Wanted, found: Plan, now: float) -> None:
        assert found.way is not None
        fit = found.way.choice
        assert isinstance(fit, Fit)
        keep_alive_s = self._kept.pop(wanted.name, self._rules.keep_alive_s)
        self._reloads.loading(wanted.name, now)
        resident = self._roster.load(wanted, fit, keep_alive_s, now)
        if why := self._set_aside.why(wanted.manifest.id):
            if resident.drafter is not Drafter.ABSENT:
                resident.drafter, resident.drafter_why = Drafter.SET_ASIDE, why
        elif wanted.without_drafter and resident.drafter is Drafter.DETACHED:
            resident.drafter_why = "memory ran out when it was loaded with it"

    def _wanted(self, wanted: Wanted) -> Wanted:
        alone = self._set_aside.why(wanted.manifest.id) or wanted.name in self._after_oom
        return replace(wanted, without_drafter=True) if alone else wanted

    def _is_freeing(self, name: ModelName, situation: Situation, now: float) -> bool:
        """After a load that ran out of memory: everything idle goes, whatever figures say."""
        if self._after_oom.get(name) is not _AfterOom.FREEING:
            return False
        self._after_oom[name] = _AfterOom.AGAIN
        need = {room.id: room.total for room in situation.rooms if room.id != PLACES}
        steps = relief(situation, need)
        self._roster.obey(steps, f"{name.short} ran out of memory", now)
        return bool(steps)

    def _refusal(self, name: ModelName, machine: Machine, now: float) -> GemmaError | None:
        refusal = self._breaker.refusal(name, now) or self._reloads.refusal(name, now)
        if refusal is None and (why := self._ways.unusable(machine)):
            return LoadFailed(
                f"There is no device to load model '{name.short}' on: {why}.",
                fix="Bring the device back, or allow the CPU with GEMMA_CPU_FALLBACK=1.",
            )
        return refusal

    def _refuse_alike(self, first: Waiter, error: GemmaError) -> None:
        """All who want the same as the first get the error."""
        wanted = first.wanted
        for waiter in self._queue.of(wanted.name):
            if waiter is first or waiter.wanted == wanted:
                self._refuse(waiter, error)

    def _refuse(self, waiter: Waiter, error: GemmaError) -> None:
        self._queue.remove(waiter)
        self._effects.tell(EventKind.REFUSED, waiter.wanted.name, error.message)
        self._effects.refuse(waiter, error)


def _is_of_memory(error: GemmaError) -> bool:
    """Whether a load failed for want of memory: its runner said so, or the system killed it."""
    return isinstance(error, WillNotFit) or (
        isinstance(error, RunnerCrashed) and error.out_of_memory
    )


def _will_not_fit(wanted: Wanted, shortage: Shortage | None) -> WillNotFit:
    name = wanted.name.short
    if shortage is None:
        return WillNotFit(f"model '{name}' cannot be loaded in any way on this machine.")
    fit = shortage.way.choice
    how = f" in its smallest form ({fit.why})" if isinstance(fit, Fit) and fit.why else ""
    return WillNotFit(
        f"model '{name}' will not fit into {shortage.budget}{how}: it needs "
        f"{_size(shortage.needed)}, {_size(shortage.free)} are free beyond the reserve, and "
        f"{_size(shortage.evictable)} could be freed.",
        fix=_advice(wanted, shortage),
    )


def _estimated(fit: Fit, machine: Machine | None) -> str:
    """What a load was thought to take, and what there is of it."""
    there = {budget.id: budget for budget in machine.budgets} if machine else {}
    told = []
    for id, nbytes in fit.takes.items():
        free = f", {_size(there[id].free)} free at the last look" if id in there else ""
        told.append(f"{_size(nbytes)} of {id}{free}")
    return f"It was estimated to take {' and '.join(told)}."


def _advice(wanted: Wanted, shortage: Shortage) -> str:
    least = _size(shortage.free + shortage.evictable)
    told = "Use a smaller num_ctx, a" if wanted.exact else "Use a"
    return f"{told} smaller or packed variant (at most {least}), or free memory that others hold."


def _size(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.1f} GiB" if nbytes >= 1 << 30 else f"{nbytes / MIB:.0f} MiB"
