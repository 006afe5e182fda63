"""Who is granted, who waits and who is refused: a state machine that acts only through Effects.

Every method takes the time and is called by one owner (loop.py). What may happen to a request:

1. The daemon stops, the queue is full, or the breaker is open: it is refused.
2. Its pair is READY as wanted: it is granted; a batch request only when a slot is free.
3. Its pair is LOADING: it waits. READY otherwise (num_ctx, new files): the pair drains, it waits;
   unless it was reloaded too often for such requests, or wants the context back that there was no
   room for, and there is none yet: it is refused.
4. Its pair is DRAINING or STOPPING: it waits until that is gone.
5. Its pair is not loaded: the planner decides (placing.py) at the next look at the machine.
6. Its deadline passes: it is refused, wherever it stands in the queue.

Waiters are served in the queue's order, and a draining pair takes nothing new, so nobody starves.
Decisions about memory need a fresh look: when `wants_look`, the owner reads the machine and calls
`looked`. What changed since the last look makes it old.
"""

import math
from collections.abc import Mapping

from gemmad.api.errors import Busy, GemmaError, RunnerCrashed, WillNotFit
from gemmad.core import Digest, ModelName
from gemmad.memory.nvml import LOST
from gemmad.memory.readings import Machine
from gemmad.residency.breaker import CrashBreaker
from gemmad.residency.budgets import Kind
from gemmad.residency.drafters import SetAside
from gemmad.residency.effects import Effects
from gemmad.residency.keeping import Keeper
from gemmad.residency.placing import Placer, WaysOf
from gemmad.residency.ports import Runner
from gemmad.residency.queue import WaitingQueue, yields
from gemmad.residency.reloads import Reloads
from gemmad.residency.resident import Drafter, Resident, State, Waiter
from gemmad.residency.roster import DRAIN_LIMIT_S, STOP_GRACE_S, Roster
from gemmad.residency.rules import Rules
from gemmad.residency.seen import EventKind
from gemmad.wire import Measured

__all__ = ["DRAIN_LIMIT_S", "STOP_GRACE_S", "Rules", "Scheduler"]

FRESH_S = 0.05  # for so long a look is good if nothing changed
RETURN_LOOK_S = 0.25  # between looks while memory of ended processes is to come


class Scheduler:
    """The residents and the queue."""

    def __init__(
        self, effects: Effects, rules: Rules, ways: WaysOf, set_aside: Mapping[Digest, str]
    ) -> None:
        """`set_aside`: drafters that did harm earlier, and how, by pair."""
        self._effects = effects
        self._rules = rules
        self.queue = WaitingQueue()
        self.residents = Roster(effects, rules)
        self.breaker = CrashBreaker()
        self._reloads = Reloads()
        self._set_aside = SetAside(set_aside, effects.keep_set_aside)
        self._keeper = Keeper(self.residents, effects, rules)
        self._placer = Placer(
            self.residents, self.queue, self._set_aside, self._reloads, self.breaker, effects,
            rules, ways,
        )  # fmt: skip
        self._closing = False
        self._looked_at = -math.inf
        self.machine: Machine | None = None  # as last read
        self.wants_look = False

    # --- requests ---

    def requested(self, waiter: Waiter, now: float) -> None:
        """A request came."""
        waiter.arrived, waiter.deadline = now, now + self._rules.queue_s
        if refusal := self._refusal(waiter, now):
            self._refuse(waiter, refusal)  # 1
            return
        self.queue.add(waiter)
        self._advance(now)
        if waiter in self.queue:
            self._effects.tell(EventKind.QUEUED, waiter.wanted.name)

    def left(self, waiter: Waiter, now: float) -> None:
        """A request ended or gave up, wherever it stood."""
        self.queue.remove(waiter)
        for resident in self.residents:
            if waiter in resident.users:
                resident.users.remove(waiter)
                resident.last_used = now
                self._rest(resident, now)
        self._advance(now)

    def unload(self, name: ModelName, now: float) -> None:
        """The pair leaves; running answers may finish within STOP_GRACE_S."""
        if resident := self.residents.get(name):
            if resident.state is State.LOADING:
                self._refuse_waiting(
                    resident, Busy(f"model '{name.short}' was stopped while loading.")
                )
            self._set_aside.forget(resident.wanted.manifest.id)
            self.residents.drain(resident, now + STOP_GRACE_S, now, "it was told to")

    def close(self, now: float) -> None:
        """Everything leaves at once and nothing new comes."""
        self._closing = True
        for waiter in self.queue.ordered(now):
            self._refuse(waiter, _stopping())
        for resident in self.residents:
            self.residents.drain(resident, now, now, "the daemon stops")

    # --- runners ---

    def loaded(self, resident: Resident, runner: Runner, now: float) -> None:
        """The runner is ready. It is stopped at once when it was told to leave meanwhile."""
        resident.runner = runner
        resident.last_used = now
        resident.reload_s = max(0.1, now - resident.load_began)
        self._placer.loaded(resident)
        if resident.state is State.LOADING:
            resident.state = State.READY
            self._tell_loaded(resident, now)
            self._note_drafter(resident, now)
        self._changed(now)
        self._rest(resident, now)

    def load_failed(self, resident: Resident, error: GemmaError, now: float) -> None:
        """The runner could not load: all that waited for just this get the error.

        But for want of memory, and where its drafter did it, there is a second try without that.
        """
        stopped = resident.state is not State.LOADING
        aside = self._forget(resident, error, now)
        again = not stopped and (aside or self._placer.tries_again(resident, error))
        reason = error.message + (" It is tried again without the drafter." if again else "")
        self._effects.tell(EventKind.LOAD_FAILED, resident.wanted.name, reason)
        if not again:
            self._refuse_waiting(resident, self._placer.told(resident, error, self.machine))
        self._changed(now)

    def gone(self, resident: Resident, error: GemmaError | None, now: float) -> None:
        """The runner's process ended, by itself (error) or because it was stopped."""
        if not self.residents.has(resident):
            return  # it crashed while it was being stopped: told twice
        stopped = resident.state is State.STOPPING
        self._forget(resident, None if stopped else error, now)
        self._effects.tell(EventKind.UNLOADED, resident.wanted.name)
        self._changed(now)

    def settled(
        self, resident: Resident, kind: Kind | None, measured: Measured | None, now: float
    ) -> None:
        """A runner has given (`kind`), or taken back its drafter (None), as it was asked."""
        self.residents.settled(resident, kind, measured, now)
        self._changed(now)

    def attach_failed(self, resident: Resident, error: GemmaError, now: float) -> None:
        """A drafter could not come back: for want of memory later, for other reasons never."""
        harmful = not isinstance(error, WillNotFit | RunnerCrashed)
        if harmful:
            self._set_aside.put(resident.wanted.manifest.id, error.message)
        self.residents.attach_failed(resident, error.message, now, harmful=harmful)
        self._changed(now)

    def measured(self, resident: Resident, measured: Measured, now: float) -> None:
        """A runner told what it takes; other figures than before make the last look old."""
        del now
        if measured != resident.measured:
            self._looked_at = -math.inf
        self.residents.measured(resident, measured)

    # --- the machine and time ---

    def looked(self, machine: Machine, spare_bytes: int, now: float) -> None:
        """The machine was read just now."""
        before, self.machine = self.machine, machine
        self._looked_at, self.wants_look = now, False
        self.residents.read(machine, spare_bytes, now)
        self._notice_lost(before, machine)
        self._advance(now)
        if self._closing:
            return
        self._keeper.relieve(machine, now)
        if not len(self.queue):
            self._keeper.reattach(machine, now)

    def tick(self, now: float) -> None:
        """Time passed: deadlines are kept."""
        for waiter in self.queue.late(now):
            self._refuse(waiter, self._late(waiter))  # 6
        for resident in self.residents.tick(now):
            self._refuse_waiting(resident, _slow(resident, self._rules.load_s))
            self.residents.drain(resident, now, now, "its load took too long")
        self._advance(now)

    def next_tick(self, now: float) -> float:
        """When `tick` has something to do; infinity when nothing is timed."""
        look = now + RETURN_LOOK_S if self.residents.is_returning and len(self.queue) else math.inf
        return min(self.residents.next_time(), self.queue.next_time(now), look)

    def slept(self, seconds: float, now: float) -> None:
        """The machine was suspended, or this process: every runner has to show that it lives."""
        self.residents.shift(seconds)
        self.queue.shift(seconds)
        for resident in self.residents:
            if resident.usable:
                self._effects.check(resident)
        self._changed(now)

    # --- decisions ---

    @property
    def waiting(self) -> int:
        """Requests that wait here or, granted, for a free slot of their runner."""
        beyond = (len(r.users) - r.slots for r in self.residents)
        return len(self.queue) + sum(max(0, extra) for extra in beyond)

    def why_set_aside(self, resident: Resident) -> str | None:
        """Why the pair's drafter is not used."""
        return self._set_aside.why(resident.wanted.manifest.id)

    def _refusal(self, waiter: Waiter, now: float) -> GemmaError | None:
        if self._closing:
            return _stopping()
        if self.waiting >= self._rules.max_queue:
            return Busy(
                f"server busy: {self._rules.max_queue} requests are waiting.",
                fix="Try again later.",
            )
        return self.breaker.refusal(waiter.wanted.name, now)

    def _changed(self, now: float) -> None:
        """What is known of memory is old."""
        self._looked_at = -math.inf
        self._advance(now)

    def _advance(self, now: float) -> None:
        homeless = False
        for waiter in self.queue.ordered(now):
            resident = self.residents.get(waiter.wanted.name)
            homeless |= resident is None
            if resident is not None and resident.usable:
                self._meet(waiter, resident, now)
        if not homeless:
            return
        if machine := self._fresh(now):
            self._placer.place(machine, now)  # 5
        else:
            self.wants_look = True

    def _fresh(self, now: float) -> Machine | None:
        """The machine as it is; None: it has to be looked at."""
        return self.machine if now - self._looked_at <= FRESH_S else None

    def _meet(self, waiter: Waiter, resident: Resident, now: float) -> None:
        if not resident.serves(waiter.wanted):
            self._replace(waiter, resident, now)  # 3
        elif not (yields(waiter, now) and len(resident.users) >= resident.slots):
            self.queue.remove(waiter)
            resident.users.add(waiter)
            resident.last_used = now
            if waiter.keep_alive_s is not None:
                resident.keep_alive_s = waiter.keep_alive_s
            self._effects.grant(waiter, resident)  # 2

    def _replace(self, waiter: Waiter, resident: Resident, now: float) -> None:
        name = resident.wanted.name
        same = resident.wanted.manifest.id == waiter.wanted.manifest.id
        if same and (refusal := self._reloads.refusal(name, now, leaves=True)):
            self._refuse(waiter, refusal)
            return
        if waiter.wanted.more_than:
            if (machine := self._fresh(now)) is None:
                self.wants_look = True
                return
            if no_room := self._placer.cannot_grow(waiter, resident, machine, now):
                self._refuse(waiter, no_room)
                return
        resident.leaves_for_others = same
        self._placer.keep(name, resident.keep_alive_s)
        why = "a request wants it with other settings" if same else "its files have changed"
        self.residents.drain(resident, now + DRAIN_LIMIT_S, now, why)

    def _refuse_waiting(self, resident: Resident, error: GemmaError) -> None:
        """Those in the queue who wait for just this load get the error."""
        for waiter in self.queue.of(resident.wanted.name):
            if resident.serves(waiter.wanted):
                self._refuse(waiter, error)

    def _refuse(self, waiter: Waiter, error: GemmaError) -> None:
        self.queue.remove(waiter)
        self._effects.tell(EventKind.REFUSED, waiter.wanted.name, error.message)
        self._effects.refuse(waiter, error)

    def _rest(self, resident: Resident, now: float) -> None:
        self.residents.rest(resident, now)
        if resident.idle and now >= resident.expires:
            self.tick(now)

    def _tell_loaded(self, resident: Resident, now: float) -> None:
        fit = resident.fit
        told = f"on {fit.where}" + (f": {fit.why}" if fit.why else "") if fit else ""
        numbers = {"load_s": now - resident.load_began}
        self._effects.tell(EventKind.LOADED, resident.wanted.name, told, numbers)

    def _note_drafter(self, resident: Resident, now: float) -> None:
        """Where its drafter is, by what the runner says."""
        resident.drafter_moved = now
        loaded = resident.runner.loaded if resident.runner else None
        if loaded is None or resident.drafter is not Drafter.ATTACHED or loaded.drafter:
            return
        resident.drafter = Drafter.SET_ASIDE
        resident.drafter_why = loaded.drafter_note or "its runner did not load it"
        name = resident.wanted.name
        self._effects.tell(EventKind.DRAFTER_SET_ASIDE, name, resident.drafter_why)

    def _forget(self, resident: Resident, error: GemmaError | None, now: float) -> bool:
        """It is gone; True: because of its drafter, which is set aside from here on."""
        if self.residents.has(resident) and resident.leaves_for_others:
            self._reloads.left(resident.wanted.name)
        self.residents.forget(resident, now)
        if not isinstance(error, RunnerCrashed):
            return False
        name = resident.wanted.name
        self.breaker.crashed(name, error, now)
        self._effects.tell(EventKind.CRASHED, name, error.message)
        if not self._set_aside.crashed(resident, error, now):
            return False
        why = self._set_aside.why(resident.wanted.manifest.id) or ""
        self._effects.tell(EventKind.DRAFTER_SET_ASIDE, name, why)
        return True

    def _notice_lost(self, before: Machine | None, machine: Machine) -> None:
        """Runners on a GPU that has just been lost have to show that they live."""
        lost = {d.id: d.note for d in machine.devices if d.note.startswith(LOST)}
        known = {d.id for d in before.devices if d.note.startswith(LOST)} if before else set()
        for id in lost.keys() - known:
            self._effects.tell(EventKind.PRESSURE, reason=f"{id}: {lost[id]}")
            for resident in self.residents:
                if resident.fit and id in resident.fit.devices and resident.usable:
                    self._effects.check(resident)

    def _late(self, waiter: Waiter) -> Busy:
        name = waiter.wanted.name
        resident = self.residents.get(name)
        state = "memory for it did not come free" if resident is None else resident.state.value
        return Busy(
            f"model '{name.short}' was not ready within {self._rules.queue_s:.0f} s: {state}.",
            fix="Try again later, or stop another model.",
            retry_after_s=30,
        )


def _stopping() -> Busy:
    return Busy("The daemon is stopping.", fix="Try again in a moment.")


def _slow(resident: Resident, load_s: float) -> Busy:
    return Busy(
        f"model '{resident.wanted.name.short}' was not loaded within {load_s:.0f} s.",
        fix="See its runner's log, then try again.",
        retry_after_s=30,
    )
