"""A process that fetches one file, to be killed: URL, digest, size and store root as arguments."""

import asyncio
import sys
from pathlib import Path

from gemmad.core import ByteCount, Digest, FileEntry
from gemmad.fetch.fetcher import Fetcher
from gemmad.sources.half import Remote
from gemmad.store.disk import Disk
from gemmad.store.partial import Partial
from gemmad.store.paths import StorePaths


async def fetch(url: str, digest: str, size: str, root: str) -> None:
    """The file is in the store."""
    entry = FileEntry(Digest(digest), ByteCount(int(size)))
    with Partial(entry, StorePaths(Path(root)), Disk()) as partial:
        await Fetcher().fetch(Remote(url), partial, lambda _: None)


if __name__ == "__main__":
    asyncio.run(fetch(*sys.argv[1:]))
