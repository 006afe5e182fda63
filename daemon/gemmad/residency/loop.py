"""The owner of residency: one task feeds events to the scheduler, and looks at the machine."""

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gemmad import wire
from gemmad.api.errors import TimedOut
from gemmad.core import ModelName
from gemmad.memory.probe import Probe
from gemmad.memory.readings import Machine
from gemmad.residency.depths import DepthStates
from gemmad.residency.hands import Hands, Tools
from gemmad.residency.placing import WaysOf
from gemmad.residency.resident import Heard, Resident, Waiter, Wanted
from gemmad.residency.rules import Rules
from gemmad.residency.scheduler import Scheduler
from gemmad.residency.seen import (
    EventKind,
    OnEvent,
    Priority,
    ResidencyEvent,
    ResidencySnapshot,
    unheard,
)
from gemmad.residency.showing import Tally, snapshot
from gemmad.residency.situation import SPARE_BYTES

log = logging.getLogger(__name__)

LOOK_S = 1.5  # between looks at the machine while anything of ours is in memory
ASLEEP_S = 5.0  # a wait that took so much longer was no wait: the machine slept
_RECENT = 0.3  # weight of the latest answer's speed


@dataclass(frozen=True, slots=True)
class Senses:
    """What residency perceives by; tests play them."""

    probe: Probe
    clock: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time
    # Goes on while the machine is suspended; equal to `clock` where nothing better is known.
    since_boot: Callable[[], float] = time.monotonic


def since_boot() -> float:
    """Seconds that the machine is on, suspended or not; where nobody tells, those it was awake."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The right to use a loaded pair, held while a request runs."""

    def __init__(
        self, resident: Resident, depths: DepthStates, load_ns: int, deadline_s: float
    ) -> None:
        assert resident.runner is not None
        self._runner = resident.runner
        self._resident = resident
        self._depths = depths
        self._deadline_s = deadline_s
        self.load_ns = load_ns  # how long the request waited for the pair
        self.num_ctx = resident.runner.loaded.num_ctx

    def new_id(self) -> int:
        """A fresh request id."""
        return self._runner.new_id()

    async def generate(
        self, request: wire.Generate
    ) -> AsyncGenerator[list[wire.Delta | wire.Done], None]:
        """The answer, all that is there at a time.

        What the depth controller learned is kept for the next load.

        Raises:
            TimedOut: the answer took longer than a request may.
            GemmaError: the runner refused the request or died.
        """
        answer = self._runner.generate(request)
        if not math.isinf(self._deadline_s):
            answer = self._in_time(answer)
        async with contextlib.aclosing(answer):
            async for events in answer:
                if isinstance(last := events[-1], wire.Done):
                    self._done(last)
                yield events

    async def _in_time(
        self, answer: AsyncGenerator[list[wire.Delta | wire.Done], None]
    ) -> AsyncGenerator[list[wire.Delta | wire.Done], None]:
        ends = asyncio.get_running_loop().time() + self._deadline_s
        try:
            async with contextlib.aclosing(answer):
                while True:
                    async with asyncio.timeout_at(ends):
                        events = await anext(answer, None)
                    if events is None:
                        return
                    yield events
        except TimeoutError as error:
            raise TimedOut(
                f"The answer was not complete after {self._deadline_s:.0f} s and was stopped.",
                fix="Limit it with num_predict, or raise request_timeout.",
            ) from error

    def _done(self, done: wire.Done) -> None:
        if done.depth_state is not None:
            self._depths.learned(self._resident.wanted.manifest, done.depth_state)
        _hear(self._resident.heard, done)


def _hear(heard: Heard, done: wire.Done) -> None:
    heard.draft = done.draft
    if done.eval_ns <= 0 or done.eval_tokens <= 0:
        return
    speed = done.eval_tokens * 1e9 / done.eval_ns
    before = heard.tokens_per_second
    heard.tokens_per_second = speed if before is None else before + _RECENT * (speed - before)


class Residency:
    """Loads pairs on demand and lends them; start with `start`, end with `close`."""

    def __init__(
        self,
        tools: Tools,
        rules: Rules,
        ways: WaysOf,
        senses: Senses,
        on_event: OnEvent = unheard,
        request_s: float = math.inf,
    ) -> None:
        self._tools = tools
        self._rules = rules
        self._senses = senses
        self._on_event = on_event
        self._request_s = request_s
        self._tally = Tally()
        # Written by every public method and by effect tasks, read by the owner task alone.
        self._inbox: asyncio.Queue[Callable[[float], None]] = asyncio.Queue()
        self._hands = Hands(tools, self._inbox.put_nowait, self._told)
        self._scheduler = Scheduler(self._hands, rules, ways, tools.reasons.known())
        self._hands.events = self._scheduler
        self._owner: asyncio.Task[None] | None = None
        self._gone = asyncio.Condition()
        self._looked_at = -math.inf
        self._asleep = senses.since_boot() - senses.clock()  # time that the clock did not count
        self._due = math.inf  # when the owner's wait ends at the latest

    # --- for the rest of the daemon ---

    def start(self) -> None:
        """The owner task runs, and the first load finds a spare that has begun to prepare."""
        self._owner = asyncio.create_task(self._run(), name="residency")
        self._tools.spare.refill()

    @asynccontextmanager
    async def lease(
        self, wanted: Wanted, keep_alive_s: float | None, priority: Priority = "interactive"
    ) -> AsyncIterator[Lease]:
        """The pair is loaded as wanted and stays so until the block ends.

        Raises:
            Busy: the queue is full, the pair keeps crashing, it took too long, the daemon stops.
            WillNotFit: memory has no room for the pair, whatever leaves.
            LoadFailed: the pair could not be loaded (or another GemmaError of its load).
            RunnerCrashed: the runner died while loading.
        """
        began = time.monotonic_ns()
        if not self._tools.weigher.knows(wanted.manifest):
            await asyncio.to_thread(self._tools.weigher.know, wanted.manifest)
        granted: asyncio.Future[Resident] = asyncio.get_running_loop().create_future()
        waiter = Waiter(wanted, keep_alive_s, granted, priority)
        self._post(functools.partial(self._scheduler.requested, waiter))
        try:
            resident = await waiter.granted
            waited_ns = time.monotonic_ns() - began
            yield Lease(resident, self._tools.depths, waited_ns, self._request_s)
            self._hands.measure(resident)
        finally:
            self._post(functools.partial(self._scheduler.left, waiter))

    async def unload(self, name: ModelName) -> None:
        """The pair is not in memory; answers it was giving had STOP_GRACE_S to finish."""
        key = name.key
        leaving = self._scheduler.residents.get(key)
        if leaving is None:
            return
        self._post(functools.partial(self._scheduler.unload, key))
        async with self._gone:
            await self._gone.wait_for(lambda: not self._scheduler.residents.has(leaving))

    def residents(self) -> tuple[Resident, ...]:
        """What is loaded, loading or leaving; to be shown, never to decide by."""
        return tuple(self._scheduler.residents)

    def expires_in_s(self, resident: Resident) -> float:
        """Seconds until the pair leaves if nobody asks for it; infinity for never."""
        if resident.users or resident.runner is None:
            return resident.keep_alive_s
        return max(0.0, resident.expires - self._senses.clock())

    def snapshot(self) -> ResidencySnapshot:
        """Everything at this moment; to be shown, never to decide by."""
        now = self._senses.clock()
        offset = self._senses.unix() - now
        return snapshot(self._scheduler, self._rules, self._tally.totals, now, offset)

    async def close(self) -> None:
        """No runner is left and the owner task has ended."""
        self._post(self._scheduler.close)
        async with self._gone:
            await self._gone.wait_for(lambda: not len(self._scheduler.residents))
        await self._hands.close()
        if self._owner:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)

    # --- the owner ---

    def _post(self, event: Callable[[float], None]) -> None:
        self._inbox.put_nowait(event)

    def _told(
        self, kind: EventKind, name: ModelName | None, reason: str, numbers: Mapping[str, float]
    ) -> None:
        self._tally.count(kind)
        model = str(name) if name else ""
        told = ResidencyEvent(self._senses.unix(), kind, model, reason, dict(numbers))
        try:
            self._on_event(told)
        except Exception:  # a supervisor's task: a listener's fault must not end residency
            log.exception("residency: a listener failed")

    async def _run(self) -> None:
        while True:
            event = await self._next_event()
            try:
                self._notice_sleep(self._senses.clock())
                event(self._senses.clock())
                now = self._senses.clock()
                if self._scheduler.wants_look or self._next_look(now) <= now:
                    await self._look()
            except Exception:  # a supervisor's task: one bad event must not end residency
                log.exception("residency: an event failed")
            async with self._gone:
                self._gone.notify_all()

    async def _next_event(self) -> Callable[[float], None]:
        now = self._senses.clock()
        wait_s = max(0.0, min(self._scheduler.next_tick(now), self._next_look(now)) - now)
        self._due = now + wait_s
        try:
            async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                return await self._inbox.get()
        except TimeoutError:
            return self._scheduler.tick

    def _notice_sleep(self, now: float) -> None:
        """A wait that took much too long was a sleep, and so is time that the clock did not count.

        Deadlines are moved by what the clock counted of it.
        """
        asleep = self._senses.since_boot() - now
        uncounted, self._asleep = asleep - self._asleep, asleep
        overslept = max(0.0, now - self._due)
        if max(overslept, uncounted) > ASLEEP_S:
            log.info("the machine slept for %.0f s", overslept + uncounted)
            self._scheduler.slept(overslept, now)

    def _next_look(self, now: float) -> float:
        """Nothing in memory: nothing to look after, the next request looks for itself."""
        if not (len(self._scheduler.residents) or self._tools.spare.waits):
            return math.inf
        return max(now, self._looked_at + LOOK_S)

    async def _look(self) -> None:
        machine = await asyncio.to_thread(self._read)
        self._looked_at = self._senses.clock()
        if machine is not None:
            spare = SPARE_BYTES if self._tools.spare.waits else 0
            self._scheduler.looked(machine, spare, self._senses.clock())

    def _read(self) -> Machine | None:
        try:
            return self._senses.probe.read()
        except Exception:  # a supervisor's task: drivers fail in their own ways
            log.exception("the machine's memory could not be read")
            return self._scheduler.machine
