"""GET /api/events: what residency does, as it happens, to every program that listens.

A listener gets a state, then events in order, and a heartbeat when nothing happened for a while.
One that reads too slowly is dropped: it can ask again and begins with the state.
"""

from collections.abc import AsyncGenerator

from aiohttp import web

from gemmad.api.errors import Busy
from gemmad.dialects.ollama import running
from gemmad.dialects.ollama.replies import Record
from gemmad.server.models import ps_record
from gemmad.server.services import SERVICES, Services
from gemmad.server.streams import ndjson

HEARTBEAT_S = 15.0


async def events(request: web.Request) -> web.StreamResponse:
    """GET /api/events."""
    return await ndjson(request, _records(request.app[SERVICES]))


async def _records(services: Services) -> AsyncGenerator[Record, None]:
    unix_ns = services.clock.unix_ns
    with services.events.listening() as listener:
        yield running.state(ps_record(services), unix_ns())
        while not listener.is_over:
            if told := await listener.next(HEARTBEAT_S):
                yield running.event(told)
            elif not listener.is_over:
                yield running.heartbeat(unix_ns())
    if listener.is_late:
        raise Busy("This listener read too slowly and was dropped.", fix="Ask again.")
