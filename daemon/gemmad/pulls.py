"""Pull jobs: one per name however many ask, progress fanned out to all of them."""

import asyncio
import errno
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import BinaryIO, ParamSpec, TypeVar

import msgspec

from gemmad.api.errors import Busy, GemmaError, ModelNotFound, PullFailed, WillNotFit
from gemmad.core import ModelName, digest_hex
from gemmad.sources.source import Kind, Plan, Source, SourceFile
from gemmad.store.store import Store, now_text

_CHUNK_BYTES = 4 << 20


P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


class PullStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of progress, in Ollama's words; `kind` says which half of the pair it is about."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None
    kind: Kind | None = None


class PullJob:
    """What one pull has said so far. The job's task writes, any number of followers read."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.parameters = parameters
        self._log: list[PullStatus] = []
        self._done = False
        self._error: GemmaError | None = None
        self._changed = asyncio.Event()

    def say(self, status: PullStatus) -> None:
        """`status` is the latest word; progress of the same file replaces what stood there."""
        if self._log and status.digest and self._log[-1].digest == status.digest:
            self._log[-1] = status
        else:
            self._log.append(status)
        self._wake()

    def finish(self, error: GemmaError | None) -> None:
        """Nothing more will be said."""
        self._done, self._error = True, error
        self._wake()

    async def follow(self) -> AsyncGenerator[PullStatus, None]:
        """Every line from the first on; a slow reader misses intermediate progress, never a line.

        Raises:
            GemmaError: the pull failed.
        """
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

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Pulls:
    """All pulls of the daemon. A job goes on when the clients that asked for it leave."""

    def __init__(self, store: Store, sources: Sequence[Source]) -> None:
        self._store = store
        self._sources = sources
        self._jobs: dict[ModelName, PullJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer = asyncio.Lock()  # between jobs: two names may share a blob, one writer each

    def pull(
        self, name: ModelName, parameters: Mapping[str, str] | None = None
    ) -> AsyncGenerator[PullStatus, None]:
        """The progress of the pull of `name`, started now or joined; at its end the name exists.

        `parameters` are kept with the model, over those of its source.

        Raises:
            ModelNotFound: no source has such a name.
            Busy: it is being pulled with other parameters.
            GemmaError: while iterating, when the pull failed.
        """
        source = self._source(name)
        job = self._jobs.get(name.key)
        if job is None:
            job = self._jobs[name.key] = PullJob(parameters or {})
            task = asyncio.create_task(self._run(name, source, job), name=f"pull {name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif job.parameters != (parameters or {}):
            raise Busy(f"model '{name.short}' is being pulled with other parameters.")
        return job.follow()

    async def close(self) -> None:
        """No job runs any more; what was not committed is not in the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: ModelName, source: Source, job: PullJob) -> None:
        error: GemmaError | None = PullFailed(
            "The daemon stopped during the pull.", fix="Pull again."
        )
        try:
            await self._pull(name, source, job)
            error = None
        except GemmaError as raised:
            error = raised
        except OSError as raised:
            error = _disk_error(raised)
        except Exception as raised:  # a task's end: a follower must get an answer whatever happened
            log.exception("pull of %s failed", name)
            error = PullFailed(
                f"The pull failed: {type(raised).__name__}.", fix="See the daemon's log."
            )
        finally:
            del self._jobs[name.key]
            job.finish(error)

    async def _pull(self, name: ModelName, source: Source, job: PullJob) -> None:
        job.say(PullStatus("pulling manifest"))
        plan = await asyncio.to_thread(source.plan, name)
        async with self._writer:
            with self._store.pin([file.entry.digest for file in plan.files]):
                for file in plan.files:
                    await self._fetch(source, plan, file, job)
                job.say(PullStatus("verifying sha256 digest"))
                manifest = plan.manifest(name, now_text(), job.parameters)
                job.say(PullStatus("writing manifest"))
                await asyncio.to_thread(self._store.commit, manifest)
        job.say(PullStatus("success"))

    def _source(self, name: ModelName) -> Source:
        for source in self._sources:
            if source.knows(name):
                return source
        raise ModelNotFound(
            f"model '{name.short}' cannot be pulled: this version pulls the built-in pair only, "
            "not yet from a hub.",
            fix="Pull it with: gemma pull nano",
        )

    async def _fetch(self, source: Source, plan: Plan, file: SourceFile, job: PullJob) -> None:
        job.say(_progress(file, 0))
        if await asyncio.to_thread(self._store.blobs.has, file.entry):
            job.say(_progress(file, file.entry.size))
            return
        reader = await asyncio.to_thread(source.open, plan, file)
        with reader:
            await self._copy(reader, file, job)

    async def _copy(self, reader: BinaryIO, file: SourceFile, job: PullJob) -> None:
        ingest = await _in_thread(self._store.blobs.begin, file.entry)
        try:
            completed = 0
            while chunk := await _in_thread(reader.read, _CHUNK_BYTES):
                await _in_thread(ingest.write, chunk)
                completed += len(chunk)
                job.say(_progress(file, completed))
            await _in_thread(ingest.commit)
        except BaseException:  # cancelled too: the part file must not stay
            ingest.abort()
            raise


async def _in_thread(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a blocking step; cancelling waits for it, as its files must not be closed."""
    running = asyncio.ensure_future(asyncio.to_thread(step, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _progress(file: SourceFile, completed: int) -> PullStatus:
    digest = file.entry.digest
    return PullStatus(
        f"pulling {digest_hex(digest)[:12]}", digest, file.entry.size, completed, file.kind
    )


def _disk_error(error: OSError) -> GemmaError:
    if error.errno == errno.ENOSPC:
        return WillNotFit("The disk is full.", fix="Free some space and pull again.")
    return PullFailed(f"The store could not be written: {error.strerror or error}.")
