"""Keeps one runner that has imported all it needs, so that the next load begins at once.

A spare is used up by a load and replaced after it, so that the two don't compete for a core. It
leaves when nobody has loaded anything for long, or when residency wants its memory (`close`); a
later load brings it back.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemmad.memory.host import available_bytes
from gemmad.runners.process import Command
from gemmad.runners.starting import Spawned, spawn
from gemmad.wire import Hello, Prepare, WireError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpareLimits:
    """When a spare may begin to wait, in bytes of available host memory, and for how long."""

    enough_bytes: int = 4 << 30  # a spare takes 0.3 GB; below this a model needs it more
    idle_s: float = 1800.0


ALWAYS = SpareLimits(enough_bytes=0, idle_s=float("inf"))


class SpareRunner:
    """At most one spare. All methods belong to the event loop's thread."""

    def __init__(
        self,
        command: Command,
        log_path: Path,
        limits: SpareLimits,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._command = command
        self._log_path = log_path
        self._limits = limits
        self._available = available
        self._spawning: asyncio.Task[Spawned] | None = None  # None: there is no spare
        self._watching: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """A spare is there, or on its way."""
        return self._spawning is not None

    def refill(self) -> None:
        """A spare is on its way, unless there is one or memory is short."""
        if self.waits or self._available() < self._limits.enough_bytes:
            return
        self._spawning = asyncio.create_task(self._spawn(), name="spare runner")
        self._watching = asyncio.create_task(self._watch(self._spawning), name="watch spare")

    async def take(self) -> Spawned | None:
        """The spare, which is the caller's from here on; None when there is none."""
        spawning, watching = self._spawning, self._watching
        if spawning is None or watching is None:
            return None
        await asyncio.wait({spawning})
        if self._spawning is not spawning or spawning.exception():
            return None  # another load was faster, or it could not be started
        self._spawning = None
        watching.cancel()
        spare = spawning.result()
        try:
            await asyncio.wait({watching})  # two readers of one link are an error
        except asyncio.CancelledError:
            await spare.close()
            raise
        return spare

    async def close(self) -> None:
        """There is no spare and no process of one."""
        if spare := await self.take():
            await spare.close()
        elif self._watching is not None:  # it is just ending one
            await asyncio.wait({self._watching})

    async def _spawn(self) -> Spawned:
        spare = await spawn(self._command, self._log_path)
        spare.link.post(Prepare())
        return spare

    async def _watch(self, spawning: "asyncio.Task[Spawned]") -> None:
        """Reads what the spare says until it is taken (then this is cancelled) or has to go."""
        try:
            spare = await asyncio.shield(spawning)
        except OSError as error:
            log.warning("no spare runner could be started: %s", error)
            self._spawning = None
            return
        why = await self._end_of(spare)
        log.info("the spare runner leaves: %s", why)
        self._spawning = None  # from here on nobody takes it
        await spare.close()

    async def _end_of(self, spare: Spawned) -> str:
        """Why the spare has to go, once it has to."""
        idle_s = self._limits.idle_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(idle_s) else idle_s):
                return await self._silence_of(spare)
        return f"no load for {self._limits.idle_s:.0f} s"

    async def _silence_of(self, spare: Spawned) -> str:
        try:
            while (frame := await spare.link.receive()) is not None:
                spare.is_greeted |= isinstance(frame, Hello)
        except WireError as error:
            return f"it broke the protocol: {error}"
        return "it ended by itself"
