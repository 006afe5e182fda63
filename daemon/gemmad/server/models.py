"""Names in the store and in memory: tags, show, ps, pull, delete, copy."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from aiohttp import web

from gemmad.api.errors import StoreBroken
from gemmad.core import Manifest, ModelName
from gemmad.dialects.ollama import models
from gemmad.dialects.ollama.options import read_options
from gemmad.dialects.ollama.replies import Record
from gemmad.dialects.ollama.requests import CopyBody, NameBody, model_name
from gemmad.server.bodies import read_json
from gemmad.server.services import SERVICES
from gemmad.server.streams import json_response, ndjson
from gemmad.store.store import Store


async def tags(request: web.Request) -> web.Response:
    """GET /api/tags."""
    entries = await asyncio.to_thread(request.app[SERVICES].store.all)
    return json_response(models.tags(entries))


async def show(request: web.Request) -> web.Response:
    """POST /api/show."""
    body = await read_json(request, NameBody)
    store = request.app[SERVICES].store
    record = await asyncio.to_thread(_shown, store, model_name(body.called))
    return json_response(record)


def _shown(store: Store, name: ModelName) -> Record:
    manifest = store.get(name)
    licence = _text(store, manifest, "LICENSE") or (manifest.licence or "")
    return models.show(manifest, licence, _text(store, manifest, "chat_template.jinja"))


def _text(store: Store, manifest: Manifest, file: str) -> str:
    return store.text(manifest.documents.get(file) or manifest.target.get(file))


async def ps(request: web.Request) -> web.Response:
    """GET /api/ps: longest remaining lifetime first."""
    services = request.app[SERVICES]
    now_ns, residency = services.clock.unix_ns(), services.residency
    lifetimes = [(resident, residency.expires_in_s(resident)) for resident in residency.residents()]
    lifetimes.sort(key=lambda pair: pair[1], reverse=True)
    return json_response(
        {"models": [models.running(resident, left_s, now_ns) for resident, left_s in lifetimes]}
    )


async def pull(request: web.Request) -> web.StreamResponse:
    """POST /api/pull."""
    body = await read_json(request, NameBody)
    statuses = request.app[SERVICES].pulls.pull(model_name(body.called), _parameters(body))

    async def records() -> AsyncGenerator[Record, None]:
        async with contextlib.aclosing(statuses):
            async for status in statuses:
                yield models.pull_status(status)

    if body.stream is not False:
        return await ndjson(request, records())
    last = [record async for record in records()][-1]
    return json_response({"status": last["status"]})


def _parameters(body: NameBody) -> dict[str, str]:
    """What the pulled model is given beside its own defaults."""
    if body.quantize is None:
        return {}
    read_options({"quantize": body.quantize})  # or a BadRequest that names what is accepted
    return {"quantize": body.quantize}


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/delete: a loaded model is unloaded first; running answers have 10 s to finish."""
    body = await read_json(request, NameBody)
    services, name = request.app[SERVICES], model_name(body.called)
    with contextlib.suppress(StoreBroken):  # a broken name can be deleted too
        services.store.get(name)
    await services.residency.unload(name)
    await asyncio.to_thread(services.store.delete, name)
    return web.Response()


async def copy(request: web.Request) -> web.Response:
    """POST /api/copy."""
    body = await read_json(request, CopyBody)
    source = model_name(body.source, "source")
    destination = model_name(body.destination, "destination")
    await asyncio.to_thread(request.app[SERVICES].store.copy, source, destination)
    return web.Response()
