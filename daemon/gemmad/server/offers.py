"""What could be pulled: the catalogue's names, and what a hub finds."""

import asyncio
from collections.abc import Mapping, Sequence

from aiohttp import web

from gemmad.api.errors import GemmaError
from gemmad.core import ByteCount, Manifest, ModelName
from gemmad.dialects.ollama.making import SearchBody
from gemmad.dialects.ollama.replies import Record
from gemmad.formats.limits import BadFile
from gemmad.memory.estimate import Setting, estimate
from gemmad.memory.files import read_shape
from gemmad.memory.host import cpu_kind
from gemmad.memory.readings import Machine
from gemmad.server.bodies import read_json
from gemmad.server.machine import fits
from gemmad.server.services import SERVICES, Services
from gemmad.server.streams import json_response
from gemmad.sources.catalogue import Offer

_QUERY_CHARS = 200


async def available(request: web.Request) -> web.Response:
    """GET /api/available?search=TEXT."""
    text = request.query.get("search", "")[:_QUERY_CHARS].lower()
    services = request.app[SERVICES]
    return json_response({"models": await asyncio.to_thread(_available, services, text)})


async def search(request: web.Request) -> web.Response:
    """POST /api/search."""
    body = await read_json(request, SearchBody)
    services = request.app[SERVICES]
    return json_response({"models": await asyncio.to_thread(_found, services, body.query)})


def _available(services: Services, text: str) -> list[Record]:
    offers = [o for o in services.offers() if text in f"{o.name.short} {o.about}".lower()]
    return offered(services, offers, services.machine())


def _found(services: Services, query: str) -> list[Record]:
    found = services.search(query[:_QUERY_CHARS])
    return offered(services, found, services.machine())


def offered(services: Services, offers: Sequence[Offer], machine: Machine) -> list[Record]:
    """What could be pulled, and whether it would fit `machine`."""
    installed = {
        ModelName.parse(found.name).key: found
        for found in services.store.all()
        if isinstance(found, Manifest)
    }
    needed = {offer.name: _needed(services, offer, installed, machine) for offer in offers}
    return [
        {
            "name": offer.name.short,
            "description": offer.about,
            "target_bytes": offer.sizes.target_bytes,
            "drafter_bytes": offer.sizes.drafter_bytes,
            "licence": offer.licence,
            "needed_bytes": needed[offer.name],
            "fits": fits(machine, needed[offer.name]) if offer.sizes.target_bytes else "unknown",
            "installed": offer.name.key in installed,
        }
        for offer in offers
    ]


def _needed(
    services: Services, offer: Offer, installed: Mapping[ModelName, Manifest], machine: Machine
) -> ByteCount:
    """Of a pair that is here, by its own files at the usual context; of another one, roughly."""
    manifest = installed.get(offer.name.key)
    if manifest is None:
        return offer.needed_bytes
    best = next(iter(machine.accelerators), machine.devices[-1])
    setting = Setting(
        services.num_ctx,
        kind=best.kind,
        quantize=services.quantize,
        unified=best.unified,
        cpu=cpu_kind(),
    )
    try:
        return estimate(read_shape(services.store.pair_files(manifest)), setting).device
    except (BadFile, OSError, GemmaError):  # damaged: `gemma verify` tells
        return offer.needed_bytes
