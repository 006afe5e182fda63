"""Jobs that make names: pull, create, draft and import, and the list of what runs."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec
from aiohttp import web

from gemmad.api.errors import BadRequest, GemmaError
from gemmad.core import Manifest, ModelName, digest
from gemmad.dialects.ollama import making
from gemmad.dialects.ollama.replies import Record
from gemmad.dialects.ollama.requests import model_name
from gemmad.recipes.drafters import NO_DRAFTER, NONE
from gemmad.recipes.wish import Wish
from gemmad.server.bodies import read_json
from gemmad.server.local import require_local, require_local_references
from gemmad.server.services import SERVICES, Services
from gemmad.server.statuses import pull_records, told
from gemmad.server.streams import json_response
from gemmad.sources.reference import Reference

_CREATE_BYTES = 8 << 20  # templates and licences are long


async def pull(request: web.Request) -> web.StreamResponse:
    """POST /api/pull."""
    body = await read_json(request, making.PullBody)
    require_local_references(request, body.called, body.draft)
    wanted, services = making.pull_request(body), request.app[SERVICES]
    compose = functools.partial(services.recipes.pull, wanted.reference, wanted.wish)
    statuses = services.pulls.pull(wanted.name, wanted, compose, detach=bool(body.detach))
    return await told(request, body, pull_records(statuses))


async def create(request: web.Request) -> web.StreamResponse:
    """POST /api/create."""
    body = await read_json(request, making.CreateBody, _CREATE_BYTES)
    require_local(request, body.from_path, body.draft_path, body.adapter_path)
    require_local_references(request, body.from_, body.draft)
    services, name = request.app[SERVICES], model_name(body.called)
    entry = services.store.blobs.entry
    wanted = await asyncio.to_thread(making.creation, body, lambda text: entry(digest(text)))
    compose = functools.partial(services.recipes.create, wanted)
    return await told(request, body, pull_records(services.pulls.pull(name, wanted, compose)))


async def attach_draft(request: web.Request) -> web.StreamResponse:
    """POST /api/draft."""
    body = await read_json(request, making.DraftBody)
    require_local_references(request, body.draft)
    services, name = request.app[SERVICES], model_name(body.called)
    text = making.draft_reference(body)
    manifest = await asyncio.to_thread(services.store.get, name)
    compose = functools.partial(services.recipes.draft, manifest, text)
    statuses = services.pulls.pull(name, ("draft", text), compose)
    return await told(request, body, pull_records(statuses))


async def detach_draft(request: web.Request) -> web.Response:
    """DELETE /api/draft: the drafter is gone, and a later pull does not bring it back."""
    body = await read_json(request, making.DraftBody)
    await asyncio.to_thread(_without_drafter, request.app[SERVICES], model_name(body.called))
    return web.Response()


def _without_drafter(services: Services, name: ModelName) -> None:
    manifest: Manifest = services.store.get(name)
    services.store.commit(
        msgspec.structs.replace(
            manifest,
            drafter=None,
            drafter_parameter_size=None,
            drafter_origin=None,
            draft=NONE,
            notes=tuple(note for note in manifest.notes if not note.startswith(NO_DRAFTER)),
        )
    )


async def jobs(request: web.Request) -> web.Response:
    """GET /api/pulls."""
    running = request.app[SERVICES].pulls.jobs()
    return json_response({"pulls": [msgspec.to_builtins(job) for job in running]})


async def cancel(request: web.Request) -> web.Response:
    """DELETE /api/pulls: the pull of that name ends; what came is kept."""
    body = await read_json(request, making.PullBody)
    request.app[SERVICES].pulls.cancel(making.pull_request(body).name)
    return web.Response()


async def import_models(request: web.Request) -> web.StreamResponse:
    """POST /api/import: one model of another program's store, or all."""
    body = await read_json(request, making.ImportBody)
    require_local(request, body.store)
    if body.source != "ollama":
        raise BadRequest(f"'source' is {body.source[:40]!r}.", fix="Use ollama.")
    services = request.app[SERVICES]
    store = services.ollama(Path(body.store) if body.store else None)
    names = [body.called] if body.called else await asyncio.to_thread(store.names)
    recipes = services.recipes.asking_first(store)

    def statuses(name: str) -> AsyncGenerator[Record, None]:
        reference = Reference("ollama", name)
        compose = functools.partial(recipes.pull, reference, Wish())
        wanted = ("import", reference, body.store)
        return pull_records(services.pulls.pull(reference.name, wanted, compose))

    return await told(request, body, _imports(names, statuses, alone=bool(body.called)))


async def _imports(
    names: list[str], statuses: Callable[[str], AsyncGenerator[Record, None]], *, alone: bool
) -> AsyncGenerator[Record, None]:
    """Every model's records; when all are imported, one that cannot be is told and passed over."""
    done = 0
    for name in names:
        yield {"status": "importing", "model": name}
        try:
            async with contextlib.aclosing(statuses(name)) as records:
                async for record in records:
                    if record != {"status": "success"}:
                        yield record
        except GemmaError as error:
            if alone:
                raise
            yield {"status": "passed over", "model": name, "why": str(error)}
        else:
            done += 1
    yield {"status": "success", "imported": done}
