"""All pull jobs of the daemon: one a name however many ask, joined, listed, cancelled, ended.

A job goes through these steps:
1. its plan is composed;
2. what is at hand on this machine is taken into the store;
3. the rest must fit on the disk, before its first byte is fetched;
4. the rest is fetched;
5. the files are looked into, and the manifest is committed.
"""

import asyncio
import errno
import functools
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from gemmad.api.errors import Busy, GemmaError, ModelNotFound, PullFailed, WillNotFit
from gemmad.core import Digest, Manifest, ModelName
from gemmad.pulls.binding import manifest_of
from gemmad.pulls.job import Job, JobFacts, PullStatus
from gemmad.pulls.ports import Accepts, Compose, Inspect
from gemmad.pulls.space import require_space
from gemmad.pulls.threads import in_thread, in_thread_of_its_own
from gemmad.pulls.transfer import Fetch, Transfer
from gemmad.pulls.turns import Turns
from gemmad.sources.half import SourceFile
from gemmad.sources.plan import Plan
from gemmad.store.store import Store, now_text
from gemmad.wire import PairFiles

GRACE_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What jobs work with."""

    store: Store
    fetch: Fetch
    inspect: Inspect
    accepts: Accepts = lambda _name, _value: True
    grace_s: float = GRACE_S  # how long a job goes on after its last client left


class Pulls:
    """The jobs that run. Everything but `close` is called on the event loop and never waits."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._store = means.store
        self._transfer = Transfer(means.store, means.fetch)
        self._turns = Turns()
        self._jobs: dict[ModelName, Job] = {}
        self._tasks: dict[ModelName, asyncio.Task[None]] = {}
        self._leaving: dict[ModelName, asyncio.TimerHandle] = {}
        self._cancelled: set[ModelName] = set()

    def pull(
        self, name: ModelName, wanted: object, compose: Compose, *, detach: bool = False
    ) -> AsyncGenerator[PullStatus, None]:
        """The progress of making `name`, started now or joined; at its end the name exists.

        `wanted` says what `compose` plans: who wants the same of the same name joins. With
        `detach` the job goes on when every client has left.

        Raises:
            Busy: the name is being made of something else.
            GemmaError: while iterating, when the job failed.
        """
        job = self._jobs.get(name.key)
        if job is None:
            job = self._start(name, wanted, compose)
        elif job.wanted != wanted:
            raise Busy(
                f"model '{name.short}' is being pulled with other settings.",
                fix=f"Wait for it, or end it: gemma pulls cancel {name.short}",
            )
        job.detached = job.detached or detach
        self._on_clients(job)
        return job.follow()

    def jobs(self) -> list[JobFacts]:
        """Every job that runs, oldest first."""
        return [job.facts for job in self._jobs.values()]

    def cancel(self, name: ModelName) -> None:
        """The job is on its way out; what came stays for the next pull of the name.

        Raises:
            ModelNotFound: no such job runs.
        """
        if (task := self._tasks.get(name.key)) is None:
            raise ModelNotFound(f"model '{name.short}' is not being pulled.")
        self._cancelled.add(name.key)
        task.cancel()

    async def close(self) -> None:
        """No job runs any more; a later pull of the name goes on where each one was."""
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, name: ModelName, wanted: object, compose: Compose) -> Job:
        key = name.key
        job = self._jobs[key] = Job(name, wanted, now_text(), self._on_clients)
        task = asyncio.create_task(self._run(job, compose), name=f"pull {name}")
        self._tasks[key] = task
        # For a task that was cancelled before its first step: `_run` ends all others.
        task.add_done_callback(lambda _: self._end(job, self._ended(job)))
        return job

    def _end(self, job: Job, error: GemmaError | None) -> None:
        """The followers have their answer, and whoever asks from now on starts anew."""
        key = job.name.key
        if self._jobs.get(key) is not job:
            return
        job.finish(error)
        del self._tasks[key], self._jobs[key]
        self._cancelled.discard(key)
        if leaving := self._leaving.pop(key, None):
            leaving.cancel()

    def _on_clients(self, job: Job) -> None:
        """The grace of a job begins when nobody follows it, and ends when somebody does."""
        key = job.name.key
        if leaving := self._leaving.pop(key, None):
            leaving.cancel()
        if job.clients or job.detached or self._jobs.get(key) is not job:
            return
        loop = asyncio.get_running_loop()
        self._leaving[key] = loop.call_later(self._means.grace_s, self.cancel, job.name)

    async def _run(self, job: Job, compose: Compose) -> None:
        error: GemmaError | None = None
        try:
            await self._make(job, compose)
        except asyncio.CancelledError:
            error = self._ended(job)
        except GemmaError as raised:
            error = raised
        except OSError as raised:
            error = _disk_error(raised)
        except Exception as raised:  # a task's end: a follower must get an answer whatever happened
            log.exception("pull of %s failed", job.name)
            error = PullFailed(
                f"The pull failed: {type(raised).__name__}.", fix="See the daemon's log."
            )
        finally:
            self._end(job, error)

    def _ended(self, job: Job) -> PullFailed:
        if job.name.key in self._cancelled:
            return PullFailed(
                f"The pull of '{job.name.short}' was cancelled.",
                fix="Pull it again: what came so far is kept.",
            )
        return PullFailed("The daemon stopped during the pull.", fix="Pull again: it goes on.")

    async def _make(self, job: Job, compose: Compose) -> None:
        job.say(PullStatus("pulling manifest"))
        plan = await in_thread_of_its_own(compose, "compose a plan")  # 1
        with self._store.pin([file.entry.digest for file in plan.files]):
            await self._bring(job, plan.files)
            job.say(PullStatus("verifying sha256 digest"))  # 5
            manifest = plan.manifest or await self._bound(job.name, plan)
            job.say(PullStatus("writing manifest"))
            await in_thread(self._store.commit, manifest)
        job.say(PullStatus("success"))

    async def _bring(self, job: Job, files: tuple[SourceFile, ...]) -> None:
        job.expect(files)
        away = [file for file in files if not await self._at_hand(job, file)]  # 2
        begun = await in_thread(self._begun)
        if remaining := _remaining(away, begun):
            others = sum(other.remaining for other in self._jobs.values() if other is not job)
            require_space(remaining + others, await in_thread(self._store.free))  # 3
        for file in files:
            here = begun.get(file.entry.digest, 0) if file in away else file.entry.size
            job.begin(file, min(here, file.entry.size))
            if file in away:
                await self._fetched(job, file)  # 4

    async def _at_hand(self, job: Job, file: SourceFile) -> bool:
        async with self._turns.turn(file.entry.digest):
            return await self._transfer.at_hand(file, functools.partial(job.progress, file))

    async def _fetched(self, job: Job, file: SourceFile) -> None:
        async with self._turns.turn(file.entry.digest):
            if not await in_thread(self._store.blobs.has, file.entry):  # another job's work
                await self._transfer.bring(file, functools.partial(job.progress, file))
            job.progress(file, file.entry.size)

    def _begun(self) -> dict[Digest, int]:
        """How much of each unfinished blob earlier pulls left."""
        return {found.digest: found.completed for found in self._store.partials()}

    async def _bound(self, name: ModelName, plan: Plan) -> Manifest:
        located = await in_thread(self._located, plan)
        found = await self._means.inspect(located)
        return manifest_of(name, plan, found, now_text(), self._means.accepts)

    def _located(self, plan: Plan) -> PairFiles:
        check = self._store.blobs.check
        groups = {
            kind: {name: str(check(entry)) for name, entry in plan.group(kind).items()} or None
            for kind in ("drafter", "projector", "adapter")
        }
        target = {name: str(check(entry)) for name, entry in plan.group("target").items()}
        return PairFiles(target=target, **groups)


def _remaining(files: list[SourceFile], begun: dict[Digest, int]) -> int:
    """Bytes still to come; a blob that serves twice comes once."""
    entries = {file.entry.digest: file.entry for file in files}
    return sum(max(0, e.size - begun.get(e.digest, 0)) for e in entries.values())


def _disk_error(error: OSError) -> GemmaError:
    if error.errno == errno.ENOSPC:
        return WillNotFit(
            "The disk is full.", fix="Free some space and pull again: it goes on where it stopped."
        )
    return PullFailed(f"The store could not be written: {error.strerror or error}.")
