"""One loaded runner as the daemon sees it: routes its frames, and knows when and why it is gone.

Only `_supervise` ends the story: it alone kills for silence or garbage, gives every waiting request
its answer and settles `closed`. The other methods ask for that or wait for it.
"""

import asyncio
import copy
import itertools
from collections.abc import AsyncGenerator
from typing import Any

from gemmad.api.errors import BadRequest, GemmaError, RunnerCrashed
from gemmad.runners.handshake import OnProgress, error_from
from gemmad.runners.mailbox import Mailbox, Said
from gemmad.runners.process import Command, runner_command
from gemmad.runners.questions import Question, Questions
from gemmad.runners.starting import Deadlines, RunnerSpec, Spawned, Started, crashed, start
from gemmad.wire import (
    Attach,
    Attached,
    AttachFailed,
    Cancel,
    Delta,
    Detach,
    Detached,
    Done,
    Generate,
    Measure,
    Measured,
    Ping,
    Pong,
    Reclaim,
    Reclaimed,
    RequestRefused,
    Shutdown,
    WireError,
)

__all__ = ["Deadlines", "Runner", "RunnerSpec"]

DEADLINES = Deadlines()


class Runner:
    """A running child with a loaded pair. Build it with `start`."""

    def __init__(self, name: str, started: Started, limits: Deadlines) -> None:
        self.name = name
        self.loaded = started.loaded
        self.closed: asyncio.Future[RunnerCrashed | None] = asyncio.Future()
        self._started = started
        self._child = started.child
        self._link = started.link
        self._limits = limits
        self._ids = itertools.count(1)
        # Written by generate(), read by the reading task.
        self._answers: dict[int, Mailbox] = {}
        self._questions = Questions()
        self._stopping = False
        self._last_pong = asyncio.get_running_loop().time()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"runner {name}")

    @classmethod
    async def start(
        cls,
        spec: RunnerSpec,
        *,
        on_progress: OnProgress,
        deadline_s: float = 300.0,
        command: Command = runner_command,
        limits: Deadlines = DEADLINES,
        spare: Spawned | None = None,
    ) -> "Runner":
        """A process of its own, or the spare, has loaded the pair and is ready to answer.

        Raises:
            LoadFailed: it said why it cannot (or another GemmaError, by its code), or was slow.
            RunnerCrashed: it died while loading.
        """
        started = await start(
            spec,
            on_progress=on_progress,
            deadline_s=deadline_s,
            command=command,
            limits=limits,
            spare=spare,
        )
        return cls(spec.name, started, limits)

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._child.pid

    @property
    def log_tail(self) -> tuple[str, ...]:
        """The last lines the child printed, oldest first."""
        return self._child.log_tail

    @property
    def alive(self) -> bool:
        """Whether requests can still be sent; informs only, the child may die at any time."""
        return not (self.closed.done() or self._stopping)

    def new_id(self) -> int:
        """A request id that this runner has not seen."""
        return next(self._ids)

    async def generate(self, request: Generate) -> AsyncGenerator[list[Delta | Done], None]:
        """The answer as it comes, all that is there at a time, ending with its Done.

        Leaving early cancels it in the runner.

        Raises:
            RunnerCrashed: the process died before the answer was complete.
            GemmaError: the runner refused this request; its class is that of the runner's code.
        """
        self._refuse_when_gone()
        mailbox = self._answers[request.id] = Mailbox()
        try:
            await self._send(request)
            last: Said | None = None
            while not isinstance(last, Done):
                said = await mailbox.take()
                last = said[-1]
                if isinstance(last, Done | RequestRefused):
                    del self._answers[request.id]
                if told := [one for one in said if isinstance(one, Delta | Done)]:
                    yield told
                if isinstance(last, RequestRefused):
                    raise error_from(last, otherwise=GemmaError)
                if isinstance(last, RunnerCrashed):
                    raise copy.copy(last)  # each request its own, with its own traceback
        finally:
            if self._answers.pop(request.id, None) and self.alive:
                self._link.post(Cancel(id=request.id))

    async def reclaim(self, nbytes: int) -> int:
        """The bytes the runner gave back of up to `nbytes` asked for; 0 when it is gone."""
        if not self.alive:
            return 0
        return int(await self._ask(Reclaim(nbytes), when_gone=0))

    async def detach(self) -> int:
        """The drafter is out of memory; the bytes that freed, 0 when the runner is gone."""
        if not self.alive:
            return 0
        return int(await self._ask(Detach(), when_gone=0))

    async def attach(self) -> int:
        """The drafter is in memory again and answers may be drafted; its bytes.

        Raises:
            RunnerCrashed: the process is gone.
            GemmaError: it could not be loaded; its class is that of the runner's code.
        """
        self._refuse_when_gone()
        return int(await self._ask(Attach()))

    async def measure(self) -> Measured:
        """What the process takes now.

        Raises:
            RunnerCrashed: the process is gone.
        """
        self._refuse_when_gone()
        found: Measured = await self._ask(Measure())
        return found

    def _ask(self, question: Question, when_gone: int | None = None) -> "asyncio.Future[Any]":
        answer = self._questions.ask(question, when_gone)
        self._link.post(question)
        return answer

    async def stop(self, grace_s: float = 1.0) -> None:
        """The process is gone: asked first, then told (SIGTERM), then killed."""
        self._stopping = True
        if not self.closed.done():
            self._link.post(Shutdown())
            if not await self._gone_within(grace_s):
                self._child.terminate()
                if not await self._gone_within(self._limits.terminate_s):
                    self._child.kill()
        await asyncio.shield(self._supervisor)

    async def _gone_within(self, seconds: float) -> bool:
        await asyncio.wait({self._supervisor}, timeout=seconds)
        return self._supervisor.done()

    def _refuse_when_gone(self) -> None:
        if self.closed.done() and (crash := self.closed.result()):
            raise copy.copy(crash)
        if not self.alive:
            raise self._stopped()

    async def _send(self, request: Generate) -> None:
        """Hand over; a runner that dies meanwhile answers through the queue like at any time.

        Raises:
            BadRequest: the request does not fit into a frame.
        """
        try:
            await self._link.send(request)
        except ConnectionError:
            return
        except WireError as error:
            del self._answers[request.id]
            raise BadRequest(f"The request is too large: {error}.") from error

    async def _supervise(self) -> None:
        """1 wait for the first sign of an end  2 end the process  3 tell everyone."""
        reading = asyncio.create_task(self._read())
        beating = asyncio.create_task(self._heartbeat())
        exiting = asyncio.create_task(self._child.wait())
        await asyncio.wait({reading, beating, exiting}, return_when=asyncio.FIRST_COMPLETED)  # 1
        if not beating.done():
            # What it sent before it died is still in the channel, and a closed channel comes
            # shortly before the exit: both get a moment, so that the exit code is its own.
            await asyncio.wait({reading}, timeout=self._limits.exit_s)
            if reading.done() and not _fault(reading):
                await asyncio.wait({exiting}, timeout=self._limits.exit_s)
        self._child.kill()  # 2
        code = await exiting
        faults = [_fault(task) for task in (beating, reading) if task.done()]
        for task in (reading, beating):
            task.cancel()
        await asyncio.gather(reading, beating, return_exceptions=True)
        await self._started.close()
        self._tell_everyone(code, next(filter(None, faults), None))  # 3

    async def _read(self) -> str | None:
        """Routes frames until the channel ends; the reason when that was the runner's fault."""
        try:
            while (message := await self._link.receive()) is not None:
                match message:
                    case Delta() | Done() | RequestRefused():
                        if mailbox := self._answers.get(message.id):
                            mailbox.put(message)
                    case Reclaimed() | Detached() | Attached() | AttachFailed() | Measured() if (
                        self._questions.settle(message)
                    ):
                        continue
                    case Pong():
                        self._last_pong = asyncio.get_running_loop().time()
                    case _:
                        return f"sent a {type(message).__name__} frame when none was due"
        except WireError as error:
            return f"broke the protocol: {error}"
        return None

    async def _heartbeat(self) -> str:
        """Pings until no pong came for too long; then says so.

        While this process itself stood still, as under SIGSTOP, nobody could hear: that counts not.
        """
        loop = asyncio.get_running_loop()
        for number in itertools.count():
            self._link.post(Ping(n=number))
            due = loop.time() + self._limits.ping_every_s
            await asyncio.sleep(self._limits.ping_every_s)
            self._last_pong += max(0.0, loop.time() - due)
            if (silent_s := loop.time() - self._last_pong) > self._limits.ping_missed_s:
                return f"did not answer for {silent_s:.0f} s and was killed"
        raise AssertionError("count() does not end")

    def _tell_everyone(self, code: int, reason: str | None) -> None:
        crash = None if self._stopping else crashed(self.name, self._child, code, reason)
        for mailbox in self._answers.values():
            mailbox.put(crash or self._stopped())
        self._questions.end(crash or self._stopped())
        self.closed.set_result(crash)

    def _stopped(self) -> RunnerCrashed:
        return RunnerCrashed(
            f"{self.name} was stopped before its answer was complete.", fix="Send it again."
        )


def _fault(task: "asyncio.Task[str | None] | asyncio.Task[str]") -> str | None:
    """What a finished task found wrong with the runner; a fault of our own counts as well."""
    if error := task.exception():
        return f"could not be followed any more: {error!r}"
    return task.result()
