"""The owner of residency: one task feeds events to the scheduler and carries out its effects."""

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gemmad import wire
from gemmad.api.errors import GemmaError, LoadFailed, RunnerCrashed
from gemmad.core import ModelName
from gemmad.residency.depths import DepthStates
from gemmad.residency.ports import NoSpare, Runner, Spare, StartRunner
from gemmad.residency.resident import Resident, State, Waiter, Wanted
from gemmad.residency.scheduler import Scheduler

log = logging.getLogger(__name__)

REFILL_S = 3.0  # from a load to the spare for the next one

PrepareLoad = Callable[[Wanted], wire.Load]


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of residency."""

    max_loaded: int = 3
    max_queue: int = 512
    slots: int = 1
    keep_alive_s: float = 300.0


class Lease:
    """The right to use a loaded pair, held while a request runs."""

    def __init__(self, runner: Runner, wanted: Wanted, depths: DepthStates, load_ns: int) -> None:
        self._runner = runner
        self._wanted = wanted
        self._depths = depths
        self.load_ns = load_ns  # how long the request waited for the pair
        self.num_ctx = runner.loaded.num_ctx

    def new_id(self) -> int:
        """A fresh request id."""
        return self._runner.new_id()

    async def generate(
        self, request: wire.Generate
    ) -> AsyncGenerator[wire.Delta | wire.Done, None]:
        """The answer; what the depth controller learned is kept for the next load.

        Raises:
            GemmaError: the runner refused the request or died.
        """
        async with contextlib.aclosing(self._runner.generate(request)) as answer:
            async for event in answer:
                if isinstance(event, wire.Done) and event.depth_state is not None:
                    self._depths.learned(self._wanted.manifest, event.depth_state)
                yield event


class Residency:
    """Loads pairs on demand and lends them; start with `start`, end with `close`."""

    def __init__(
        self,
        start_runner: StartRunner,
        prepare: PrepareLoad,
        depths: DepthStates,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        spare: Spare | None = None,
    ) -> None:
        self._start_runner = start_runner
        self._spare = spare or NoSpare()
        self._prepare = prepare
        self._depths = depths
        self._clock = clock
        self._scheduler = Scheduler(
            self,
            max_loaded=limits.max_loaded,
            max_queue=limits.max_queue,
            slots=limits.slots,
            keep_alive_s=limits.keep_alive_s,
        )
        # Written by every public method and by effect tasks, read by the owner task alone.
        self._inbox: asyncio.Queue[Callable[[float], None]] = asyncio.Queue()
        self._owner: asyncio.Task[None] | None = None
        self._loads: dict[Resident, asyncio.Task[Runner | None]] = {}
        self._stops: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Condition()
        self._closing = False

    # --- for the rest of the daemon ---

    def start(self) -> None:
        """The owner task runs, and the first load finds a spare that has begun to prepare."""
        self._owner = asyncio.create_task(self._run(), name="residency")
        self._spare.refill()

    @asynccontextmanager
    async def lease(self, wanted: Wanted, keep_alive_s: float | None) -> AsyncIterator[Lease]:
        """The pair is loaded as wanted and stays so until the block ends.

        Raises:
            Busy: the queue is full, the pair keeps crashing, or the daemon stops.
            LoadFailed: the pair could not be loaded (or another GemmaError of its load).
            RunnerCrashed: the runner died while loading.
        """
        began = time.monotonic_ns()
        waiter = Waiter(wanted, keep_alive_s, asyncio.get_running_loop().create_future())
        self._post(functools.partial(self._scheduler.requested, waiter))
        try:
            resident = await waiter.granted
            assert resident.runner is not None
            yield Lease(resident.runner, wanted, self._depths, time.monotonic_ns() - began)
        finally:
            self._post(functools.partial(self._scheduler.left, waiter))

    async def unload(self, name: ModelName) -> None:
        """The pair is not in memory; answers it was giving had STOP_GRACE_S to finish."""
        key = name.key
        leaving = next((r for r in self._scheduler.residents if r.wanted.name == key), None)
        if leaving is None:
            return
        self._post(functools.partial(self._scheduler.unload, key))
        async with self._gone:
            await self._gone.wait_for(lambda: leaving not in self._scheduler.residents)

    async def reclaim(self, nbytes: int) -> int:
        """Bytes that loaded pairs gave back of up to `nbytes`, the least recently used first."""
        freed = 0
        for resident in sorted(self._scheduler.residents, key=lambda r: r.last_used):
            if freed < nbytes and resident.runner is not None:
                freed += await resident.runner.reclaim(nbytes - freed)
        return freed

    def residents(self) -> tuple[Resident, ...]:
        """What is loaded, loading or leaving; to be shown, never to decide by."""
        return tuple(self._scheduler.residents)

    def expires_in_s(self, resident: Resident) -> float:
        """Seconds until the pair leaves if nobody asks for it; infinity for never."""
        if resident.users or resident.runner is None:
            return resident.keep_alive_s
        return max(0.0, resident.expires - self._clock())

    async def close(self) -> None:
        """No runner is left and the owner task has ended."""
        self._closing = True
        self._post(self._scheduler.close)
        async with self._gone:
            await self._gone.wait_for(lambda: not tuple(self._scheduler.residents))
        await self._spare.close()
        if self._owner:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)

    # --- Effects ---

    def load(self, resident: Resident) -> None:
        """A task starts the runner."""
        task = asyncio.create_task(self._load(resident), name=f"load {resident.wanted.name}")
        self._loads[resident] = task

    def stop(self, resident: Resident) -> None:
        """A task ends the runner."""
        task = asyncio.create_task(self._stop(resident), name=f"stop {resident.wanted.name}")
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    def grant(self, waiter: Waiter, resident: Resident) -> None:
        """The waiting request goes on; if it was cancelled meanwhile, `left` follows by itself."""
        if not waiter.granted.done():
            waiter.granted.set_result(resident)

    def refuse(self, waiter: Waiter, error: GemmaError) -> None:
        """The waiting request gets the error."""
        if not waiter.granted.done():
            waiter.granted.set_exception(error)

    # --- the owner and its tasks ---

    def _post(self, event: Callable[[float], None]) -> None:
        self._inbox.put_nowait(event)

    async def _run(self) -> None:
        while True:
            event = await self._next_event()
            try:
                event(self._clock())
            except Exception:  # a supervisor's task: one bad event must not end residency
                log.exception("residency: an event failed")
            async with self._gone:
                self._gone.notify_all()

    async def _next_event(self) -> Callable[[float], None]:
        wait_s = self._scheduler.next_tick() - self._clock()
        try:
            async with asyncio.timeout(None if math.isinf(wait_s) else max(0.0, wait_s)):
                return await self._inbox.get()
        except TimeoutError:
            return self._scheduler.tick

    async def _load(self, resident: Resident) -> Runner | None:
        wanted = resident.wanted
        try:
            runner = await self._start(resident)
        except GemmaError as error:
            log.warning("loading %s failed: %s", wanted.name, error)
            self._loads.pop(resident, None)
            self._post(functools.partial(self._scheduler.load_failed, resident, error))
            return None
        runner.closed.add_done_callback(functools.partial(self._closed, resident))
        log.info("loaded %s: pid %d, %s", wanted.name, runner.pid, runner.loaded.device)
        self._refill()
        self._post(functools.partial(self._scheduler.loaded, resident, runner))
        return runner

    def _refill(self) -> None:
        """After a while: the request that caused the load has the cores to itself first."""
        asyncio.get_running_loop().call_later(REFILL_S, self._refill_now)

    def _refill_now(self) -> None:
        """Not beside another load, whose own end brings the spare: it needs the cores."""
        is_loading = any(r.state is State.LOADING for r in self._scheduler.residents)
        if not (self._closing or is_loading):
            self._spare.refill()

    async def _start(self, resident: Resident) -> Runner:
        try:
            load = await asyncio.to_thread(self._prepare, resident.wanted)
            return await self._start_runner(
                load,
                name=resident.wanted.name.short,
                on_progress=functools.partial(setattr, resident, "progress"),
            )
        except GemmaError:
            raise
        except Exception as error:  # a supervisor's task: who waits must get an answer
            log.exception("loading %s failed", resident.wanted.name)
            raise LoadFailed(
                f"model '{resident.wanted.name.short}' could not be loaded: {error!r}.",
                fix="See the daemon's log.",
            ) from error

    async def _stop(self, resident: Resident) -> None:
        try:
            if runner := resident.runner or await self._loaded_meanwhile(resident):
                await runner.stop()
        except Exception:  # a supervisor's task: the pair counts as gone whatever happened
            log.exception("stopping %s failed", resident.wanted.name)
        self._loads.pop(resident, None)
        self._depths.save()
        log.info("unloaded %s", resident.wanted.name)
        self._post(functools.partial(self._scheduler.gone, resident, None))

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
            self._post(functools.partial(self._scheduler.gone, resident, error))
