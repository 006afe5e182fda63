"""What residency needs from outside: a runner, and the way to start one."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from gemmad import wire
from gemmad.api.errors import RunnerCrashed


class Runner(Protocol):
    """A loaded pair in its process."""

    @property
    def loaded(self) -> wire.Loaded:
        """What the load took."""
        ...

    @property
    def pid(self) -> int:
        """The process."""
        ...

    @property
    def closed(self) -> "asyncio.Future[RunnerCrashed | None]":
        """Done when the process is gone; the error when it was not asked to go."""
        ...

    def new_id(self) -> int:
        """An id no other request of this runner has."""
        ...

    def generate(
        self, request: wire.Generate
    ) -> AsyncGenerator[list[wire.Delta | wire.Done], None]:
        """The answer, all that is there at a time; closing the iterator cancels the request.

        Raises:
            RunnerCrashed: the process died.
            GemmaError: the runner refused the request.
        """
        ...

    async def reclaim(self, nbytes: int) -> int:
        """The bytes given back of up to `nbytes` asked for; 0 when the process is gone."""
        ...

    async def detach(self) -> int:
        """The drafter is out of memory; the bytes that freed, 0 when the process is gone."""
        ...

    async def attach(self) -> int:
        """The drafter is in memory again and answers may be drafted; its bytes.

        Raises:
            RunnerCrashed: the process is gone.
            GemmaError: it could not be loaded; the target goes on alone.
        """
        ...

    async def measure(self) -> wire.Measured:
        """What the process takes now.

        Raises:
            RunnerCrashed: the process is gone.
        """
        ...

    async def stop(self) -> None:
        """The process is gone."""
        ...


class StartRunner(Protocol):
    """Starts a process and loads a pair into it."""

    async def __call__(
        self, load: wire.Load, *, name: str, on_progress: Callable[[wire.Progress], None]
    ) -> Runner:
        """A runner that has loaded the pair.

        Raises:
            LoadFailed: it could not load.
            RunnerCrashed: it died while loading.
        """
        ...


class Spare(Protocol):
    """Holds a process that makes the next start quick."""

    @property
    def waits(self) -> bool:
        """A spare is there, or on its way."""
        ...

    def refill(self) -> None:
        """A spare is on its way, unless there is one or memory is short."""
        ...

    async def close(self) -> None:
        """There is no spare, until the next refill."""
        ...


class NoSpare:
    """Every load starts a process of its own."""

    waits = False

    def refill(self) -> None:
        """Nothing happens."""

    async def close(self) -> None:
        """Nothing was there."""
