"""Brings one file of a plan into the store, by the cheapest way its source allows.

1. It is there already.
2. Another program has it on this machine: reflink, hard link or copy, after its hash was checked.
3. Its bytes are in hand, or come over the network into a partial that a later pull resumes.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import assert_never

from gemmad.api.errors import PullFailed
from gemmad.core import digest_hex
from gemmad.pulls.threads import in_thread
from gemmad.sources.half import Content, Local, Remote, SourceFile, Stored
from gemmad.store.partial import Partial
from gemmad.store.store import Store

Progress = Callable[[int], None]  # bytes of the file that are here; from the event loop only
Fetch = Callable[[Remote, Partial, Progress], Awaitable[None]]


class Transfer:
    """The ways into one store."""

    def __init__(self, store: Store, fetch: Fetch) -> None:
        self._store = store
        self._fetch = fetch

    async def at_hand(self, file: SourceFile, on_progress: Progress) -> bool:
        """Whether the blob is there now, without a byte from the network.

        `on_progress` hears only of a file that is read on this machine.

        Raises:
            PullFailed: a file of this machine changed, or a stored one is gone.
            OSError: the store's disk refused.
        """
        if await in_thread(self._store.blobs.has, file.entry):  # 1
            return True
        own = (file.bytes.path,) if isinstance(file.bytes, Local) else ()
        for path in (*file.elsewhere, *own):  # 2
            if await self._adopted(file, path, on_progress):
                return True
        if isinstance(file.bytes, Local):
            raise PullFailed(
                f"{file.name} changed while it was read, or cannot be read.", fix="Try again."
            )
        if isinstance(file.bytes, Stored):
            raise PullFailed(
                f"{file.name} ({file.entry.digest[:19]}) is missing or damaged in the store, and "
                "where it came from does not have it any more.",
                fix="Pull the model again, or make it again from its files.",
            )
        return False

    async def bring(self, file: SourceFile, on_progress: Progress) -> None:
        """The blob is there.

        Raises:
            PullFailed: its bytes cannot be had, or are not what they must be.
            OSError: the store's disk refused.
        """
        match file.bytes:
            case Content(data):  # 3
                await in_thread(self._store.blobs.add, file.entry, [data])
                on_progress(file.entry.size)
            case Remote():
                await self._fetched(file, file.bytes, on_progress)
            case Local() | Stored():
                await self.at_hand(file, on_progress)
            case _:
                assert_never(file.bytes)

    async def _fetched(self, file: SourceFile, remote: Remote, on_progress: Progress) -> None:
        partial = await in_thread(self._store.partial, file.entry)
        try:
            on_progress(partial.completed)
            await self._fetch(remote, partial, on_progress)
        finally:
            await in_thread(partial.close)

    async def _adopted(self, file: SourceFile, path: Path, on_progress: Progress) -> bool:
        loop, stopped = asyncio.get_running_loop(), False

        def told(done: int) -> None:
            if stopped:
                raise OSError(errno.ECANCELED, "the pull was stopped")  # the store tidies up
            loop.call_soon_threadsafe(on_progress, done)

        adopt = self._store.adopt
        adopting = asyncio.to_thread(adopt, file.entry, path, told, link=_lasting(file, path))
        running = asyncio.ensure_future(adopting)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stopped = True
            await asyncio.wait([running])
            running.exception()
            raise


def _lasting(file: SourceFile, path: Path) -> bool:
    """Whether the owner of `path` names it by its content, and so never changes it in place."""
    return path in file.elsewhere or digest_hex(file.entry.digest) in path.name
