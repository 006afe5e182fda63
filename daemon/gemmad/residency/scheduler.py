"""Who is loaded, who waits and who leaves: a state machine that acts only through Effects.

Every method takes the time and is called by one owner (loop.py). What may happen to a request:

1. The daemon stops, the queue is full, or the breaker is open: it is refused.
2. Its pair is READY as wanted: it is granted.
3. Its pair is LOADING: it waits. READY otherwise (num_ctx, new files): the pair drains, it waits.
4. Its pair is DRAINING or STOPPING: it waits until that is gone.
5. Its pair is not loaded: it is loaded when there is room; else others are asked to leave.

Waiters are served in the order they came, and a draining pair takes nothing new, so nobody starves.
"""

import math
from collections.abc import Iterable
from typing import Protocol

from gemmad.api.errors import Busy, GemmaError, RunnerCrashed
from gemmad.core import ModelName
from gemmad.residency.breaker import CrashBreaker
from gemmad.residency.planner import Candidate, victims
from gemmad.residency.ports import Runner
from gemmad.residency.resident import Resident, State, Waiter

STOP_GRACE_S = 10.0  # an unload lets running answers finish for this long
DRAIN_LIMIT_S = 300.0  # a pair that must make room is stopped after this long


class Effects(Protocol):
    """All that the scheduler can do."""

    def load(self, resident: Resident) -> None:
        """Start a runner; `loaded` or `load_failed` follows."""
        ...

    def stop(self, resident: Resident) -> None:
        """End the runner; `gone` follows."""
        ...

    def grant(self, waiter: Waiter, resident: Resident) -> None:
        """The waiter may use the resident until `left`."""
        ...

    def refuse(self, waiter: Waiter, error: GemmaError) -> None:
        """The waiter gets an error."""
        ...


class Scheduler:
    """The residents and the queue."""

    def __init__(
        self, effects: Effects, *, max_loaded: int, max_queue: int, slots: int, keep_alive_s: float
    ) -> None:
        self._effects = effects
        self._max_loaded = max_loaded
        self._max_queue = max_queue
        self._slots = slots
        self._keep_alive_s = keep_alive_s
        self._queue: list[Waiter] = []
        self._residents: dict[ModelName, Resident] = {}
        self._kept: dict[ModelName, float] = {}  # keep_alive of a pair that reloads
        self._breaker = CrashBreaker()
        self._closing = False

    @property
    def residents(self) -> Iterable[Resident]:
        """Everything loaded, loading or leaving."""
        return self._residents.values()

    # --- events ---

    def requested(self, waiter: Waiter, now: float) -> None:
        """A request came."""
        refusal = self._refusal(waiter, now)
        if refusal:
            self._effects.refuse(waiter, refusal)  # 1
            return
        self._queue.append(waiter)
        self._advance(now)

    def left(self, waiter: Waiter, now: float) -> None:
        """A request ended or gave up, wherever it stood."""
        if waiter in self._queue:
            self._queue.remove(waiter)
        for resident in self._residents.values():
            if waiter in resident.users:
                resident.users.remove(waiter)
                resident.last_used = now
                self._rest(resident, now)
        self._advance(now)

    def loaded(self, resident: Resident, runner: Runner, now: float) -> None:
        """The runner is ready. It is stopped at once when it was told to leave meanwhile."""
        resident.runner = runner
        resident.last_used = now
        if resident.state is State.LOADING:
            resident.state = State.READY
        self._advance(now)
        self._rest(resident, now)

    def load_failed(self, resident: Resident, error: GemmaError, now: float) -> None:
        """The runner could not load: all that waited for just this get the error."""
        self._forget(resident, error, now)
        self._refuse_waiting(resident, error)
        self._advance(now)

    def gone(self, resident: Resident, error: GemmaError | None, now: float) -> None:
        """The runner's process ended, by itself (error) or because it was stopped."""
        self._forget(resident, None if resident.state is State.STOPPING else error, now)
        self._advance(now)

    def unload(self, name: ModelName, now: float) -> None:
        """The pair leaves; running answers may finish within STOP_GRACE_S."""
        if resident := self._residents.get(name):
            if resident.state is State.LOADING:
                self._refuse_waiting(
                    resident, Busy(f"model '{name.short}' was stopped while loading.")
                )
            self._drain(resident, now + STOP_GRACE_S, now)

    def close(self, now: float) -> None:
        """Everything leaves at once and nothing new comes."""
        self._closing = True
        waiting, self._queue = self._queue, []
        for waiter in waiting:
            self._effects.refuse(waiter, _stopping())
        for resident in list(self._residents.values()):
            self._drain(resident, now, now)

    def tick(self, now: float) -> None:
        """Time passed: idle pairs past their keep_alive leave, late drains are cut short."""
        for resident in list(self._residents.values()):
            if resident.state is State.READY and not resident.users and now >= resident.expires:
                self._drain(resident, now + STOP_GRACE_S, now)
            elif resident.state is State.DRAINING and now >= resident.stop_by:
                self._stop(resident)
        self._advance(now)

    def next_tick(self) -> float:
        """When `tick` has something to do; infinity when nothing is timed."""
        times = [r.expires for r in self._residents.values() if self._idle(r)]
        times += [r.stop_by for r in self._residents.values() if r.state is State.DRAINING]
        return min(times, default=math.inf)

    # --- decisions ---

    @property
    def _waiting(self) -> int:
        """Requests that wait here or, granted, for a free slot of their runner."""
        beyond = (len(r.users) - self._slots for r in self._residents.values())
        return len(self._queue) + sum(max(0, extra) for extra in beyond)

    def _refusal(self, waiter: Waiter, now: float) -> GemmaError | None:
        if self._closing:
            return _stopping()
        if self._waiting >= self._max_queue:
            return Busy(
                f"server busy: {self._max_queue} requests are waiting.", fix="Try again later."
            )
        return self._breaker.refusal(waiter.wanted.name, now)

    def _advance(self, now: float) -> None:
        wanting: dict[ModelName, Waiter] = {}
        for waiter in list(self._queue):
            resident = self._residents.get(waiter.wanted.name)
            if resident is None:
                wanting.setdefault(waiter.wanted.name, waiter)  # 5
            elif resident.usable:
                self._meet(waiter, resident, now)
        self._make_room(wanting, now)

    def _meet(self, waiter: Waiter, resident: Resident, now: float) -> None:
        if not resident.serves(waiter.wanted):
            self._kept[resident.wanted.name] = resident.keep_alive_s
            self._drain(resident, now + DRAIN_LIMIT_S, now)  # 3
            return
        self._queue.remove(waiter)
        resident.users.add(waiter)
        resident.last_used = now
        if waiter.keep_alive_s is not None:
            resident.keep_alive_s = waiter.keep_alive_s
        self._effects.grant(waiter, resident)  # 2

    def _make_room(self, wanting: dict[ModelName, Waiter], now: float) -> None:
        for waiter in wanting.values():
            if len(self._residents) >= self._max_loaded:
                break
            self._load(waiter, now)
        waiting = {waiter.wanted.name for waiter in self._queue}
        incoming = sum(name not in self._residents for name in waiting)
        seen = [
            Candidate(
                r.wanted.name, len(r.users), r.last_used, r.leaving or r.state is State.LOADING
            )
            for r in self._residents.values()
        ]
        for name in victims(seen, min(incoming, self._max_loaded), self._room):
            self._drain(self._residents[name], now + DRAIN_LIMIT_S, now)

    @property
    def _room(self) -> int:
        """Places not held by a pair that is still loading: it can be asked to leave only later."""
        loading = sum(r.state is State.LOADING for r in self._residents.values())
        return self._max_loaded - loading

    def _load(self, waiter: Waiter, now: float) -> None:
        name = waiter.wanted.name
        if refusal := self._breaker.refusal(name, now):
            self._queue.remove(waiter)
            self._effects.refuse(waiter, refusal)
            return
        kept = self._kept.pop(name, self._keep_alive_s)
        resident = Resident(waiter.wanted, kept, last_used=now)
        self._residents[name] = resident
        self._effects.load(resident)

    def _refuse_waiting(self, resident: Resident, error: GemmaError) -> None:
        """Those in the queue who wait for just this load get the error."""
        for waiter in list(self._queue):
            same = waiter.wanted.name == resident.wanted.name
            if same and resident.serves(waiter.wanted):
                self._queue.remove(waiter)
                self._effects.refuse(waiter, error)

    def _drain(self, resident: Resident, stop_by: float, now: float) -> None:
        if resident.state is State.STOPPING:
            return
        resident.stop_by = min(resident.stop_by, stop_by)
        loading = resident.runner is None
        resident.state = State.DRAINING
        if loading or not resident.users or now >= resident.stop_by:
            self._stop(resident)

    def _stop(self, resident: Resident) -> None:
        resident.state = State.STOPPING
        self._effects.stop(resident)

    def _rest(self, resident: Resident, now: float) -> None:
        if resident.users:
            return
        if resident.state is State.DRAINING:
            self._stop(resident)
        elif resident.state is State.READY:
            resident.expires = now + resident.keep_alive_s
            self.tick(now)

    def _forget(self, resident: Resident, error: GemmaError | None, now: float) -> None:
        name = resident.wanted.name
        if self._residents.get(name) is resident:
            del self._residents[name]
        if isinstance(error, RunnerCrashed):
            self._breaker.crashed(name, error, now)

    @staticmethod
    def _idle(resident: Resident) -> bool:
        return resident.state is State.READY and not resident.users


def _stopping() -> Busy:
    return Busy("The daemon is stopping.", fix="Try again in a moment.")
