"""One pull as its followers see it: what it has said, how far it is, and whether anyone listens."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import msgspec

from gemmad.api.errors import GemmaError
from gemmad.core import ModelName, digest_hex
from gemmad.sources.half import Kind, SourceFile


class PullStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of progress, in Ollama's words; `kind` says which part of the pair it is about."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None
    kind: Kind | None = None
    resumed: int | None = None  # bytes of the file that were here before this pull


class JobFacts(msgspec.Struct, frozen=True):
    """What lists show of one job."""

    name: str
    state: str
    total: int
    completed: int
    started_at: str
    clients: int
    detached: bool


class Job:
    """What one pull has said so far. The job's task writes, any number of followers read."""

    def __init__(
        self, name: ModelName, wanted: object, started_at: str, on_clients: Callable[["Job"], None]
    ) -> None:
        self.name = name
        self.wanted = wanted  # what was asked for: who asks for the same joins
        self.detached = False
        self.clients = 0
        self._started_at = started_at
        self._on_clients = on_clients
        self._log: list[PullStatus] = []
        self._bytes: dict[str, tuple[int, int]] = {}  # completed and total by digest
        self._resumed: dict[str, int] = {}  # bytes by digest, where there were any
        self._done = False
        self._error: GemmaError | None = None
        self._changed = asyncio.Event()

    @property
    def done(self) -> bool:
        """Whether it has said its last."""
        return self._done

    @property
    def facts(self) -> JobFacts:
        """How far it is."""
        total = sum(total for _, total in self._bytes.values())
        completed = sum(done for done, _ in self._bytes.values())
        state = self._log[-1].status if self._log else "waiting"
        return JobFacts(
            str(self.name),
            "pulling" if state.startswith("pulling ") and self._bytes else state,
            total,
            completed,
            self._started_at,
            self.clients,
            self.detached,
        )

    @property
    def remaining(self) -> int:
        """Bytes of the files it has begun or planned that are not here yet."""
        return sum(total - done for done, total in self._bytes.values())

    def say(self, status: PullStatus) -> None:
        """`status` is the latest word; progress of the same file replaces what stood there."""
        if self._log and self._log[-1] == status:
            return
        if self._log and status.digest and self._log[-1].digest == status.digest:
            self._log[-1] = status
        else:
            self._log.append(status)
        self._wake()

    def expect(self, files: tuple[SourceFile, ...]) -> None:
        """The job will bring these files."""
        self._bytes = {file.entry.digest: (0, file.entry.size) for file in files}

    def begin(self, file: SourceFile, here: int) -> None:
        """So many bytes of `file` were here before this job brought any."""
        if here:
            self._resumed[file.entry.digest] = here
        self.progress(file, here)

    def progress(self, file: SourceFile, completed: int) -> None:
        """So many bytes of `file` are here."""
        entry = file.entry
        self._bytes[entry.digest] = (completed, entry.size)
        status = f"pulling {digest_hex(entry.digest)[:12]}"
        resumed = self._resumed.get(entry.digest)
        self.say(PullStatus(status, entry.digest, entry.size, completed, file.kind, resumed))

    def finish(self, error: GemmaError | None) -> None:
        """Nothing more will be said."""
        self._done, self._error = True, error
        self._wake()

    async def follow(self) -> AsyncGenerator[PullStatus, None]:
        """Every line from the first on; a slow reader misses intermediate progress, never a line.

        Raises:
            GemmaError: the pull failed.
        """
        self._client(1)
        try:
            async for status in self._told():
                yield status
        finally:
            self._client(-1)

    async def _told(self) -> AsyncGenerator[PullStatus, None]:
        position, told = 0, None
        while True:
            changed, done = self._changed, self._done
            while position < len(self._log):
                if (status := self._log[position]) is not told:
                    told = status
                    yield status
                if position == len(self._log) - 1:
                    break  # the last line may still be replaced
                position += 1
            if done:
                break
            await changed.wait()
        if self._error:
            raise self._error

    def _client(self, change: int) -> None:
        self.clients += change
        self._on_clients(self)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
