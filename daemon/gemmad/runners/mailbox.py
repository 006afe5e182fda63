"""What a runner has said of one answer and its asker has not taken yet.

Unbounded, because one slow client must not stop the others' frames; an answer is never longer than
the context.
"""

import asyncio

from gemmad.api.errors import RunnerCrashed
from gemmad.wire import Delta, Done, RequestRefused

Said = Delta | Done | RequestRefused | RunnerCrashed


class Mailbox:
    """Written by the task that reads frames, read by the one that asked."""

    def __init__(self) -> None:
        self._kept: list[Said] = []
        self._is_complete = False
        self._comes: asyncio.Future[None] | None = None

    def put(self, said: Said) -> None:
        """`said` can be taken, unless the answer is complete: a runner may die after that."""
        if self._is_complete:
            return
        self._kept.append(said)
        self._is_complete = not isinstance(said, Delta)
        if self._comes is not None and not self._comes.done():
            self._comes.set_result(None)

    async def take(self) -> list[Said]:
        """All that was said since the last time, in order; waits for the first of it."""
        while not self._kept:
            self._comes = asyncio.get_running_loop().create_future()
            await self._comes
        said, self._kept = self._kept, []
        return said
