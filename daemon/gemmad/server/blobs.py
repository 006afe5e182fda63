"""Uploads: any bytes, named by their hash, streamed into the store and never held in memory."""

import asyncio
import errno

from aiohttp import web

from gemmad.api.errors import BadRequest, PullFailed, TooSlow, WillNotFit
from gemmad.core import Digest, digest
from gemmad.pulls.space import require_space
from gemmad.pulls.threads import in_thread
from gemmad.server.services import SERVICES
from gemmad.store.ingest import Ingest
from gemmad.store.store import Store

IDLE_S = 30.0  # an upload may take hours, but not pause
_PIECE_BYTES = 4 << 20  # what one step in a thread writes


async def has(request: web.Request) -> web.Response:
    """HEAD /api/blobs/{digest}."""
    entry = request.app[SERVICES].store.blobs.entry
    there = await asyncio.to_thread(entry, _digest(request)) is not None
    return web.Response(status=200 if there else 404)


async def upload(request: web.Request) -> web.Response:
    """POST /api/blobs/{digest}: 201 when it was stored, 200 when it was there before."""
    store, wanted = request.app[SERVICES].store, _digest(request)
    if await asyncio.to_thread(store.blobs.entry, wanted) is not None:
        return web.Response(status=200)
    require_space(request.content_length or 0, await asyncio.to_thread(store.free))
    await _received(request, store, wanted)
    return web.Response(status=201)


def _digest(request: web.Request) -> Digest:
    """The digest in the path; Ollama writes `sha256-` too."""
    return digest(request.match_info["digest"].replace("sha256-", "sha256:", 1))


async def _received(request: web.Request, store: Store, wanted: Digest) -> None:
    ingest = await in_thread(store.receive, wanted)
    try:
        await _stream(request, ingest)
        await in_thread(ingest.commit)
    except PullFailed as error:
        ingest.abort()
        raise BadRequest(f"The content is not {wanted}.", fix="Send it again.") from error
    except OSError as error:
        ingest.abort()
        if error.errno == errno.ENOSPC:
            raise WillNotFit("The disk is full.", fix="Free some space.") from error
        raise
    except BaseException:  # cancelled too, when the client leaves
        ingest.abort()
        raise


async def _stream(request: web.Request, ingest: Ingest) -> None:
    piece = bytearray()
    while chunk := await _next(request):
        piece += chunk
        if len(piece) >= _PIECE_BYTES:
            await in_thread(ingest.write, bytes(piece))
            piece.clear()
    await in_thread(ingest.write, bytes(piece))


async def _next(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(IDLE_S):
            return await request.content.readany()
    except TimeoutError:
        raise TooSlow(f"The upload paused for {IDLE_S:.0f} s.", fix="Send it again.") from None
