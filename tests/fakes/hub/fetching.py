"""What tests of fetching share: a partial of a file on the hub, and limits small enough to wait."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from gemmad.core import ByteCount, Digest, FileEntry
from gemmad.fetch.fetcher import Fetcher
from gemmad.fetch.limits import FetchLimits
from gemmad.fetch.route import Body
from gemmad.sources.half import Remote
from gemmad.store.disk import Disk
from gemmad.store.partial import Partial
from gemmad.store.paths import StorePaths
from tests.fakes.hub.server import FakeHub

REPO = "google/gemma-4-nano-it"
NAME = "model.safetensors"
CHUNK = 64 << 10

QUICK = FetchLimits(
    connections=3,
    connect_s=2,
    stall_s=0.3,
    slow_s=0.2,
    least_rate=1 << 10,
    attempts=8,
    backoff_s=0.01,
    backoff_most_s=0.05,
    retry_after_most_s=2,
)


def entry_of(data: bytes) -> FileEntry:
    """What the store must hold in the end."""
    digest = Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
    return FileEntry(digest, ByteCount(len(data)))


def blob_path(root: Path, entry: FileEntry) -> Path:
    """Where the store keeps it."""
    return StorePaths(root).blob(entry.digest)


class Pull:
    """One file of the hub into a store below `root`; `run` as often as a test cancels it."""

    def __init__(
        self,
        hub: FakeHub,
        root: Path,
        data: bytes,
        *,
        name: str = NAME,
        token: str | None = None,
        limits: FetchLimits = QUICK,
        chunk_bytes: int = CHUNK,
    ) -> None:
        self.entry = entry_of(data)
        self.data = data
        self.remote = Remote(hub.file_url(REPO, name), token)
        self.fetcher = Fetcher(limits)
        self.heard: list[int] = []
        self._root, self._chunk_bytes = root, chunk_bytes

    @property
    def path(self) -> Path:
        """Where the blob is once it is whole."""
        return blob_path(self._root, self.entry)

    @property
    def right(self) -> bool:
        """Whether the blob is there with the bytes it should have."""
        return self.path.exists() and self.path.read_bytes() == self.data

    @property
    def monotonic(self) -> bool:
        """Whether progress never went back."""
        return self.heard == sorted(self.heard)

    def open(self) -> Partial:
        """The partial, begun or resumed."""
        return Partial(self.entry, StorePaths(self._root), Disk(), chunk_bytes=self._chunk_bytes)

    async def run(self, on_progress: Callable[[int], None] | None = None) -> None:
        """The file is in the store, or the fetch's error is raised."""
        with self.open() as partial:
            await self.fetcher.fetch(self.remote, partial, on_progress or self.heard.append)


async def until(condition: Callable[[], bool]) -> None:
    """The condition holds; it is one of the hub's threads, which wake no loop."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def cancelled_after(task: "asyncio.Task[None]", condition: Callable[[], bool]) -> float:
    """Cancels the task once the condition holds; returns how long its end took."""
    loop = asyncio.get_running_loop()
    await until(lambda: task.done() or condition())
    assert not task.done(), "the fetch ended before it could be cancelled"
    began = loop.time()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    return loop.time() - began


@contextlib.contextmanager
def counted_reads() -> Iterator[Callable[[], int]]:
    """Gives how many bytes fetchers have read inside: what a server sent may be in a socket yet."""
    counts: list[int] = []
    read_into = Body.read_into

    def counted(body: Body, view: memoryview) -> int:
        counts.append(read_into(body, view))
        return counts[-1]

    with patch.object(Body, "read_into", counted):
        yield lambda: sum(counts)
