"""One writer a blob: pulls of different names run side by side until they want the same file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gemmad.core import Digest


class Turns:
    """Who writes which blob just now, and who waits for it."""

    def __init__(self) -> None:
        self._locks: dict[Digest, asyncio.Lock] = {}
        self._wanted: dict[Digest, int] = {}

    @asynccontextmanager
    async def turn(self, digest: Digest) -> AsyncIterator[None]:
        """Inside, no other pull writes this blob. Take one turn at a time: two could deadlock."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        self._wanted[digest] = self._wanted.get(digest, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[digest] -= 1
            if not self._wanted[digest]:
                del self._wanted[digest], self._locks[digest]
