"""Carries out what the scheduler decides: tasks that end in an event for it.

Whatever a task meets, its event comes: nothing that was begun stays without an end.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from gemmad import wire
from gemmad.api.errors import GemmaError, LoadFailed, RunnerCrashed
from gemmad.core import Digest, ModelName
from gemmad.residency.budgets import Kind
from gemmad.residency.depths import DepthStates
from gemmad.residency.fits import Fit
from gemmad.residency.ports import Runner, Spare, StartRunner
from gemmad.residency.reasons import Reasons
from gemmad.residency.resident import Resident, Waiter, Wanted
from gemmad.residency.seen import EventKind
from gemmad.residency.weighing import Weigher
from gemmad.wire import Measured

log = logging.getLogger(__name__)

REFILL_S = 3.0  # from a load to the spare for the next one
MEASURE_S = 0.5  # from the end of an answer to the look at what its pair takes
CHECK_S = 10.0  # in which a runner has to show that it lives

PrepareLoad = Callable[[Wanted, Fit], wire.Load]  # blocks
Tell = Callable[[EventKind, ModelName | None, str, Mapping[str, float]], None]


class Events(Protocol):
    """What the scheduler hears of the ends of tasks; every method is posted, never called here."""

    def loaded(self, resident: Resident, runner: Runner, now: float) -> None: ...
    def load_failed(self, resident: Resident, error: GemmaError, now: float) -> None: ...
    def gone(self, resident: Resident, error: GemmaError | None, now: float) -> None: ...
    def settled(
        self, resident: Resident, kind: Kind | None, measured: Measured | None, now: float
    ) -> None: ...
    def attach_failed(self, resident: Resident, error: GemmaError, now: float) -> None: ...
    def measured(self, resident: Resident, measured: Measured, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What the hands work with."""

    start_runner: StartRunner
    prepare: PrepareLoad
    depths: DepthStates
    weigher: Weigher
    spare: Spare
    reasons: Reasons


class Hands:
    """The Effects of a running daemon."""

    def __init__(self, tools: Tools, post: Callable[[Callable[[float], None]], None], tell: Tell):
        self._tools = tools
        self._post = post
        self._tell = tell
        self._loads: dict[Resident, asyncio.Task[Runner | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # What one runner is asked is asked in the order of the decisions.
        self._in_turn: WeakKeyDictionary[Resident, asyncio.Lock] = WeakKeyDictionary()
        self._measuring: set[Resident] = set()
        self._closing = False
        self.events: Events | None = None  # set once, by the loop that builds both

    # --- Effects ---

    def load(self, resident: Resident) -> None:
        """A task starts the runner."""
        task = asyncio.create_task(self._load(resident), name=f"load {resident.wanted.name}")
        self._loads[resident] = task

    def stop(self, resident: Resident) -> None:
        """A task ends the runner."""
        self._begin(self._stop(resident), f"stop {resident.wanted.name}")

    def reclaim(self, resident: Resident, nbytes: int) -> None:
        """A task asks for prefixes back."""
        ask = functools.partial(_reclaim, nbytes=nbytes)
        self._begin(self._give(resident, Kind.RECLAIM, ask), f"reclaim {resident.wanted.name}")

    def detach(self, resident: Resident) -> None:
        """A task takes the drafter out of memory."""
        self._begin(self._give(resident, Kind.DETACH, _detach), f"detach {resident.wanted.name}")

    def attach(self, resident: Resident) -> None:
        """A task brings the drafter back."""
        self._begin(self._attach(resident), f"attach {resident.wanted.name}")

    def check(self, resident: Resident) -> None:
        """A task ends the runner if it says nothing for CHECK_S."""
        self._begin(self._check(resident), f"check {resident.wanted.name}")

    def keep_set_aside(self, reasons: Mapping[Digest, str]) -> None:
        """They are on disk: a small file, and seldom."""
        self._tools.reasons.save(reasons)

    def drop_spare(self) -> None:
        """A task ends the spare."""
        self._begin(self._tools.spare.close(), "drop the spare")

    def grant(self, waiter: Waiter, resident: Resident) -> None:
        """The waiting request goes on; if it was cancelled meanwhile, `left` follows by itself."""
        if not waiter.granted.done():
            waiter.granted.set_result(resident)

    def refuse(self, waiter: Waiter, error: GemmaError) -> None:
        """The waiting request gets the error."""
        if not waiter.granted.done():
            waiter.granted.set_exception(error)

    def tell(
        self,
        kind: EventKind,
        name: ModelName | None = None,
        reason: str = "",
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        """Whoever listens knows."""
        self._tell(kind, name, reason, numbers or {})

    # --- for the loop ---

    def measure(self, resident: Resident) -> None:
        """What the pair takes is known a moment later; many answers in a row are one."""
        if resident not in self._measuring:
            self._measuring.add(resident)
            asyncio.get_running_loop().call_later(MEASURE_S, self._begin_measure, resident)

    def _begin_measure(self, resident: Resident) -> None:
        self._measuring.discard(resident)
        if resident.usable and not self._closing:
            self._begin(self._measure(resident), f"measure {resident.wanted.name}")

    async def close(self) -> None:
        """No spare, and every task has ended."""
        self._closing = True
        await self._tools.spare.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- tasks ---

    def _begin(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _happened(self, event: Callable[..., None], *told: object) -> None:
        self._post(functools.partial(event, *told))

    @property
    def _to(self) -> Events:
        assert self.events is not None
        return self.events

    async def _load(self, resident: Resident) -> Runner | None:
        wanted = resident.wanted
        try:
            runner = await self._start(resident)
        except GemmaError as error:
            log.warning("loading %s failed: %s", wanted.name, error)
            self._loads.pop(resident, None)
            self._happened(self._to.load_failed, resident, error)
            return None
        runner.closed.add_done_callback(functools.partial(self._closed, resident))
        log.info("loaded %s: pid %d, %s", wanted.name, runner.pid, runner.loaded.device)
        asyncio.get_running_loop().call_later(REFILL_S, self._refill)
        self._happened(self._to.loaded, resident, runner)
        return runner

    def _refill(self) -> None:
        """After a while: the request that caused the load has the cores to itself first.

        Not beside another load, whose own end brings the spare: it needs the cores.
        """
        if not (self._closing or any(not load.done() for load in self._loads.values())):
            self._tools.spare.refill()

    async def _start(self, resident: Resident) -> Runner:
        assert resident.fit is not None
        name = resident.wanted.name.short
        try:
            load = await asyncio.to_thread(self._tools.prepare, resident.wanted, resident.fit)
            progress = functools.partial(setattr, resident.heard, "progress")
            return await self._tools.start_runner(load, name=name, on_progress=progress)
        except GemmaError:
            raise
        except Exception as error:  # a supervisor's task: who waits must get an answer
            log.exception("loading %s failed", resident.wanted.name)
            raise LoadFailed(
                f"model '{name}' could not be loaded: {error!r}.",
                fix="See the daemon's log.",
            ) from error

    async def _stop(self, resident: Resident) -> None:
        try:
            if runner := resident.runner or await self._loaded_meanwhile(resident):
                await runner.stop()
        except Exception:  # a supervisor's task: the pair counts as gone whatever happened
            log.exception("stopping %s failed", resident.wanted.name)
        self._loads.pop(resident, None)
        await asyncio.to_thread(self._save)
        log.info("unloaded %s", resident.wanted.name)
        self._happened(self._to.gone, resident, None)

    def _save(self) -> None:
        self._tools.depths.save()
        self._tools.weigher.save()

    async def _loaded_meanwhile(self, resident: Resident) -> Runner | None:
        """Cancels a load; the runner when it was faster."""
        load = self._loads[resident]
        load.cancel()
        await asyncio.wait([load])
        return None if load.cancelled() else load.result()

    def _closed(self, resident: Resident, closed: "asyncio.Future[RunnerCrashed | None]") -> None:
        error = None if closed.cancelled() else closed.result()
        if error is not None:
            log.warning("%s", error)
            self._loads.pop(resident, None)
            self._happened(self._to.gone, resident, error)

    async def _give(
        self, resident: Resident, kind: Kind, ask: Callable[[Runner], Awaitable[int]]
    ) -> None:
        measured = None
        try:
            assert resident.runner is not None
            async with self._turn(resident), asyncio.timeout(CHECK_S):
                freed = await ask(resident.runner)
                log.info("%s: %s gave %d bytes", kind.name, resident.wanted.name, freed)
                measured = await resident.runner.measure()
        except (GemmaError, TimeoutError) as error:
            log.warning("%s of %s: %s", kind.name, resident.wanted.name, error or "no answer")
            if isinstance(error, TimeoutError):
                return  # the roster's own deadline counts it as not done
        self._happened(self._to.settled, resident, kind, measured)

    async def _attach(self, resident: Resident) -> None:
        try:
            assert resident.runner is not None
            async with self._turn(resident):
                await resident.runner.attach()
                measured = await resident.runner.measure()
        except GemmaError as error:
            log.warning("the drafter of %s stays away: %s", resident.wanted.name, error)
            self._happened(self._to.attach_failed, resident, error)
        else:
            self._happened(self._to.settled, resident, None, measured)

    async def _check(self, resident: Resident) -> None:
        runner = resident.runner
        if runner is None:
            return
        try:
            async with asyncio.timeout(CHECK_S):
                measured = await runner.measure()
            self._happened(self._to.measured, resident, measured)
        except GemmaError:
            return  # its end is told by itself
        except TimeoutError:
            log.warning("%s does not answer and is ended", resident.wanted.name)
            await runner.stop()
            error = RunnerCrashed(f"The runner of {resident.wanted.name.short} did not answer.")
            self._loads.pop(resident, None)
            self._happened(self._to.gone, resident, error)

    async def _measure(self, resident: Resident) -> None:
        assert resident.runner is not None
        assert resident.fit is not None
        with contextlib.suppress(GemmaError, TimeoutError):
            async with self._turn(resident), asyncio.timeout(CHECK_S):
                measured = await resident.runner.measure()
            self._tools.weigher.took(resident.wanted.manifest, resident.fit, measured)
            self._happened(self._to.measured, resident, measured)

    def _turn(self, resident: Resident) -> asyncio.Lock:
        return self._in_turn.setdefault(resident, asyncio.Lock())


async def _reclaim(runner: Runner, nbytes: int) -> int:
    return await runner.reclaim(nbytes)


async def _detach(runner: Runner) -> int:
    return await runner.detach()
