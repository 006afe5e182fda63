"""Names in the store and in memory: tags, show, ps, delete, copy."""

import asyncio

from aiohttp import web

from gemmad.core import ModelName
from gemmad.dialects.ollama import models, running
from gemmad.dialects.ollama.replies import Record
from gemmad.dialects.ollama.requests import CopyBody, NameBody, model_name
from gemmad.server.bodies import read_json
from gemmad.server.housekeeping import loaded_pairs_pinned
from gemmad.server.services import SERVICES, Services
from gemmad.server.streams import json_response
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
    licences = [entry for file, entry in manifest.documents.items() if file.startswith("LICENSE")]
    licence = "\n".join(map(store.text, licences)) or (manifest.licence or "")
    return models.show(manifest, licence, store.text(manifest.target.get("chat_template.jinja")))


async def ps(request: web.Request) -> web.Response:
    """GET /api/ps: what is in memory, on what device, and who waits."""
    return json_response(ps_record(request.app[SERVICES]))


def ps_record(services: Services) -> Record:
    """The record of /api/ps now."""
    residency = services.residency
    loaded = (resident.wanted.manifest for resident in residency.residents())
    manifests = {manifest.id: manifest for manifest in loaded}
    return running.ps(residency.snapshot(), manifests, services.clock.unix_ns())


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/delete: a loaded model is unloaded first; running answers have 10 s to finish."""
    body = await read_json(request, NameBody)
    services, name = request.app[SERVICES], model_name(body.called)
    await services.residency.unload(name)
    with loaded_pairs_pinned(services):
        await asyncio.to_thread(services.store.delete, name)
    return web.Response()


async def copy(request: web.Request) -> web.Response:
    """POST /api/copy."""
    body = await read_json(request, CopyBody)
    source = model_name(body.source, "source")
    destination = model_name(body.destination, "destination")
    await asyncio.to_thread(request.app[SERVICES].store.copy, source, destination)
    return web.Response()
