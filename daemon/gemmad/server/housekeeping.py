"""The store looked after: collect what nothing names, verify and repair, drop the unfinished."""

import asyncio
import contextlib
import functools
import queue
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack

import msgspec
from aiohttp import web

from gemmad.api.errors import GemmaError
from gemmad.core import ByteCount, ModelName
from gemmad.dialects.ollama.making import GcBody, VerifyBody
from gemmad.dialects.ollama.replies import Record
from gemmad.dialects.ollama.requests import model_name
from gemmad.recipes.wish import Wish
from gemmad.server.bodies import read_json
from gemmad.server.services import SERVICES, Services
from gemmad.server.statuses import pull_records, told
from gemmad.server.streams import json_response
from gemmad.sources.reference import Reference
from gemmad.store.verification import Verdict

_TELL_S = 0.2


@contextlib.contextmanager
def loaded_pairs_pinned(services: Services) -> Iterator[None]:
    """Inside, no blob of a pair in memory is removed, whatever its name is bound to by now."""
    with ExitStack() as pins:
        for resident in services.residency.residents():
            pins.enter_context(services.store.pin(resident.wanted.manifest.digests))
        yield


async def gc(request: web.Request) -> web.Response:
    """POST /api/gc."""
    body = await read_json(request, GcBody)
    services = request.app[SERVICES]
    with loaded_pairs_pinned(services):
        found = await asyncio.to_thread(services.store.gc, dry_run=body.dry_run)
    record: Record = {
        "blobs": [{"digest": digest, "size": size} for digest, size in found.blobs],
        "bytes": found.bytes,
        "dry_run": body.dry_run,
    }
    if found.kept_recent:
        record["note"] = f"Younger than a day, so kept for now: {found.kept_recent}."
    return json_response(record)


async def partials(request: web.Request) -> web.Response:
    """POST /api/partials: downloads that are not finished."""
    found = await asyncio.to_thread(request.app[SERVICES].store.partials)
    records = [msgspec.to_builtins(partial) for partial in found]
    return json_response({"partials": records, "bytes": sum(p.completed for p in found)})


async def remove_partials(request: web.Request) -> web.Response:
    """DELETE /api/partials: none is left but those being written."""
    freed = await asyncio.to_thread(request.app[SERVICES].store.remove_partials)
    return json_response({"bytes": freed})


async def verify(request: web.Request) -> web.StreamResponse:
    """POST /api/verify: every byte is read again; what is bad is fetched again if asked."""
    body = await read_json(request, VerifyBody)
    services = request.app[SERVICES]
    name = model_name(body.called) if body.called else None
    if name is not None:
        with contextlib.suppress(GemmaError):  # a broken name is what verify is for
            await asyncio.to_thread(services.store.get, name)
    return await told(request, body, _verified(services, name, repair=bool(body.repair)))


async def _verified(
    services: Services, name: ModelName | None, *, repair: bool
) -> AsyncGenerator[Record, None]:
    bad: dict[ModelName, int] = {}
    records = _Verifying(services, name).records()
    async with contextlib.aclosing(records):
        async for verdict, record in records:
            if verdict is not None and not verdict.ok:
                bad[verdict.name] = bad.get(verdict.name, 0) + 1
            yield record
    failed = 0
    for broken in bad if repair else ():
        yield {"status": "repairing", "model": str(broken)}
        try:
            async for record in _repaired(services, broken):
                if record != {"status": "success"}:
                    yield record
        except GemmaError as error:
            failed += 1
            yield {"status": "not repaired", "model": str(broken), "why": str(error)}
    repaired = len(bad) - failed if repair else 0
    yield {"status": "success", "bad": sum(bad.values()), "repaired": repaired}


def _repaired(services: Services, name: ModelName) -> AsyncGenerator[Record, None]:
    """The records of bringing back what a name lacks; a lost manifest is pulled anew."""
    recipes = services.recipes
    try:
        compose = functools.partial(recipes.repair, services.store.get(name))
    except GemmaError:
        compose = functools.partial(recipes.pull, Reference.parse(str(name)), Wish())
    return pull_records(services.pulls.pull(name, "repair", compose))


class _StopError(Exception):
    """Ends the thread; no OSError, which would be taken for a bad disk."""


class _Verifying:
    """A pass of the store in a thread, read here as records."""

    def __init__(self, services: Services, name: ModelName | None) -> None:
        self._store, self._name = services.store, name
        self._found: queue.SimpleQueue[tuple[Verdict | None, Record]] = queue.SimpleQueue()
        self._stopped = False
        self._completed, self._total, self._next = 0, 0, 0.0

    async def records(self) -> AsyncGenerator[tuple[Verdict | None, Record], None]:
        """A record a verdict, and some between while a large file is read."""
        running = asyncio.ensure_future(asyncio.to_thread(self._run))
        try:
            while not running.done() or not self._found.empty():
                while not self._found.empty():
                    yield self._found.get()
                await asyncio.wait({running}, timeout=_TELL_S)
        finally:
            self._stopped = True
            await asyncio.wait({running})
            if not running.cancelled() and not isinstance(running.exception(), _StopError):
                running.result()

    def _run(self) -> None:
        for verdict in self._store.verify(self._name, self._progress):
            self._found.put((verdict, self._record(verdict)))

    def _progress(self, completed: ByteCount, total: ByteCount) -> None:
        if self._stopped:
            raise _StopError
        self._completed, self._total = completed, total
        if (now := time.monotonic()) >= self._next:
            self._next = now + _TELL_S
            self._found.put((None, {"status": "verifying"} | self._figures))

    @property
    def _figures(self) -> Record:
        return {"completed": self._completed, "total": self._total}

    def _record(self, verdict: Verdict) -> Record:
        record: Record = {
            "status": "verifying",
            "model": str(verdict.name),
            "file": verdict.file,
            "digest": verdict.digest,
            "ok": verdict.ok,
        }
        if verdict.kind is not None:
            record["kind"] = verdict.kind
        if not verdict.ok:
            record["why"] = verdict.why
        return record | self._figures
