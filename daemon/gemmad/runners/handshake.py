"""The first words with a new runner: hello, load, progress, until it is ready or says why not."""

import asyncio
from collections.abc import Callable

from gemmad.api.errors import GemmaError, LoadFailed
from gemmad.runners.link import Link
from gemmad.wire import (
    PROTOCOL,
    AttachFailed,
    FromRunner,
    Hello,
    Load,
    Loaded,
    Prepared,
    Progress,
    RequestRefused,
    WireError,
)
from gemmad.wire import LoadFailed as LoadFailedFrame

OnProgress = Callable[[Progress], None]


class RunnerWentAway(Exception):
    """The runner closed its channel in the middle of the handshake."""


class RunnerStalled(Exception):
    """Nothing moved for too long; the message names the phase and the limit."""


class Handshake:
    """One load, watched: a phase in which nothing moves for `stall_s` seconds ends it.

    A progress frame that repeats the one before shows that the process lives, not that the load
    moves, so it does not count: otherwise a read that hangs would be waited for until the deadline.
    """

    def __init__(
        self, link: Link, on_progress: OnProgress, stall_s: float, *, is_greeted: bool = False
    ) -> None:
        self._is_greeted = is_greeted
        self.phase = "start"
        self._link = link
        self._on_progress = on_progress
        self._stall_s = stall_s
        self._last = Progress(phase="start", done=0, total=0)

    async def run(self, load: Load) -> Loaded:
        """The runner is ready to answer.

        Raises:
            GemmaError: the runner could not load the pair; its class is that of the runner's code.
            RunnerStalled: no phase moved for `stall_s` seconds.
            RunnerWentAway: it closed its channel.
            WireError: it speaks another protocol.
        """
        try:
            async with asyncio.timeout(self._stall_s) as watchdog:
                if not self._is_greeted:
                    self._expect_hello(await self._next())
                await self._link.send(load)
                return await self._until_loaded(watchdog)
        except TimeoutError as error:
            raise RunnerStalled(
                f"made no progress for {self._stall_s:g} s in phase {self.phase!r}"
            ) from error

    async def _until_loaded(self, watchdog: asyncio.Timeout) -> Loaded:
        while True:
            match await self._next():
                case Progress() as progress:
                    self._on_moved(progress, watchdog)
                case Prepared():  # a spare that was taken while it prepared
                    continue
                case Loaded() as loaded:
                    return loaded
                case LoadFailedFrame() as failed:
                    raise error_from(failed, otherwise=LoadFailed)
                case other:
                    raise WireError(f"a {type(other).__name__} frame came during the load")

    def _on_moved(self, progress: Progress, watchdog: asyncio.Timeout) -> None:
        if progress != self._last:
            watchdog.reschedule(asyncio.get_running_loop().time() + self._stall_s)
        self._last = progress
        self.phase = progress.phase
        self._on_progress(progress)

    async def _next(self) -> FromRunner:
        message = await self._link.receive()
        if message is None:
            raise RunnerWentAway
        return message

    def _expect_hello(self, message: FromRunner) -> None:
        if not isinstance(message, Hello):
            raise WireError(f"the first frame was {type(message).__name__}, not a hello")
        if message.protocol != PROTOCOL:
            raise WireError(f"the runner speaks protocol {message.protocol}, not {PROTOCOL}")


def error_from(
    frame: LoadFailedFrame | RequestRefused | AttachFailed, *, otherwise: type[GemmaError]
) -> GemmaError:
    """The error of our tree that has the frame's code, else `otherwise`."""
    classes = {cls.code: cls for cls in _all_subclasses(GemmaError)}
    return classes.get(frame.code, otherwise)(frame.message, fix=frame.fix)


def _all_subclasses(cls: type[GemmaError]) -> list[type[GemmaError]]:
    direct = cls.__subclasses__()
    return direct + [deeper for child in direct for deeper in _all_subclasses(child)]
