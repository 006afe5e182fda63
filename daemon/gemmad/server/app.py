"""The application: a table of routes behind the guard, and errors in the dialect."""

import logging

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from gemmad.api.errors import Busy, GemmaError
from gemmad.dialects.ollama.replies import error_record
from gemmad.server import (
    blobs,
    doctor,
    events,
    exporting,
    generation,
    housekeeping,
    metrics,
    models,
    offers,
    pulling,
)
from gemmad.server.bodies import CHAT_BYTES
from gemmad.server.guard import Incoming, Refusal, judge
from gemmad.server.services import SERVICES, Services
from gemmad.server.streams import json_response

log = logging.getLogger(__name__)

_STATUS_CODES = {404: "not_found", 405: "method_not_allowed"}


async def root(_request: web.Request) -> web.Response:
    """GET /: is anyone there?"""
    return web.Response(text="Gemma is running")


async def version(request: web.Request) -> web.Response:
    """GET /api/version."""
    return json_response({"version": request.app[SERVICES].version})


ROUTES = (
    web.get("/", root),  # GET routes answer HEAD too
    web.get("/api/version", version),
    web.get("/api/tags", models.tags),
    web.get("/api/ps", models.ps, allow_head=False),
    web.get("/api/events", events.events, allow_head=False),
    web.post("/api/doctor", doctor.examine),
    web.get("/metrics", metrics.metrics, allow_head=False),
    web.post("/api/show", models.show),
    web.post("/api/pull", pulling.pull),
    web.get("/api/pulls", pulling.jobs, allow_head=False),
    web.delete("/api/pulls", pulling.cancel),
    web.post("/api/create", pulling.create),
    web.post("/api/draft", pulling.attach_draft),
    web.delete("/api/draft", pulling.detach_draft),
    web.post("/api/import", pulling.import_models),
    web.post("/api/export", exporting.export),
    web.head("/api/blobs/{digest}", blobs.has),
    web.post("/api/blobs/{digest}", blobs.upload),
    web.get("/api/available", offers.available, allow_head=False),
    web.post("/api/search", offers.search),
    web.post("/api/gc", housekeeping.gc),
    web.post("/api/verify", housekeeping.verify),
    web.post("/api/partials", housekeeping.partials),
    web.delete("/api/partials", housekeeping.remove_partials),
    web.post("/api/copy", models.copy),
    web.delete("/api/delete", models.delete),
    web.post("/api/generate", generation.generate),
    web.post("/api/chat", generation.chat),
)


def create_app(services: Services) -> web.Application:
    """The application; every route, known or not, lies behind the guard."""
    app = web.Application(middlewares=[_count, _guard, _errors], client_max_size=CHAT_BYTES)
    app[SERVICES] = services
    app.add_routes(ROUTES)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    app[SERVICES].events.close()


@web.middleware
async def _count(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts the answer; a path that is no route is a stranger's text, and no label."""
    status = 499  # as others call it: the client left before there was an answer
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "none"
        method = request.method if route != "none" else "any"
        request.app[SERVICES].counts.requests[method, route, status] += 1


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    if refusal := judge(_incoming(request)):
        log.info("refused %s %s: %s", request.method, request.path[:100], refusal.error.message)
        return _refusal_response(refusal)
    return await handler(request)


def _incoming(request: web.Request) -> Incoming:
    transport = request.transport
    address = transport.get_extra_info("sockname") if transport else None
    return Incoming(
        method=request.method,
        path=request.path,
        port=address[1] if isinstance(address, tuple) else None,
        hosts=request.headers.getall(hdrs.HOST, []),
        headers=request.headers,
        has_body=request.body_exists,
    )


def _refusal_response(refusal: Refusal) -> web.Response:
    return json_response(error_record(refusal.error), refusal.status)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except GemmaError as error:
        return _error_response(error)
    except web.HTTPException as error:
        return _http_error(request, error)
    except ConnectionError:
        raise  # the client is gone: there is nobody to answer
    except Exception:  # the guard's last stand: a bug must not take the connection's client down
        log.exception("%s %s failed", request.method, request.path[:100])
        return _error_response(GemmaError("The daemon made a mistake.", fix="See its log."))


def _error_response(error: GemmaError) -> web.Response:
    response = json_response(error_record(error), error.status)
    if isinstance(error, Busy):
        response.headers[hdrs.RETRY_AFTER] = str(error.retry_after_s)
    return response


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    what = f"{request.method} {request.path[:100]}: {error.reason.lower()}."
    record = {"error": what, "code": _STATUS_CODES.get(error.status, "bad_request")}
    response = json_response(record, error.status)
    if hdrs.ALLOW in error.headers:
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response
