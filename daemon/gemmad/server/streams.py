"""Sends records as NDJSON, one a line; a client that leaves or never reads ends the work."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import msgspec
from aiohttp import web

from gemmad.api.errors import GemmaError
from gemmad.dialects.ollama.replies import Record, error_record

WRITE_STALL_S = 60.0
_FITS_BYTES = 16384  # far below asyncio's high-water mark of 64 KiB
_encoder = msgspec.json.Encoder()


def json_response(value: object, status: int = 200) -> web.Response:
    """`value` as one JSON body."""
    return web.Response(body=_encoder.encode(value), status=status, content_type="application/json")


class NdjsonResponse(web.StreamResponse):
    """Its head goes out with the first record, which is there when it is made: one packet less."""

    _send_headers_immediately = False  # aiohttp's own switch, of its whole responses


async def ndjson(request: web.Request, records: AsyncGenerator[Record, None]) -> web.StreamResponse:
    """`ndjson_together` of records that come one at a time."""

    async def each() -> AsyncGenerator[list[Record], None]:
        async with contextlib.aclosing(records):
            async for record in records:
                yield [record]

    return await ndjson_together(request, each())


async def ndjson_together(
    request: web.Request, records: AsyncGenerator[list[Record], None]
) -> web.StreamResponse:
    """All records have been sent, or the client is gone; either way `records` is closed.

    Those that come together are sent together.

    Raises:
        GemmaError: before the first record; later errors are the stream's last line.
    """
    async with contextlib.aclosing(records):
        first = await anext(records, None)
        response = NdjsonResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            if first is not None:
                await _send(request, response, first)
            await _send_rest(request, response, records)
            await response.write_eof()
    return response


async def _send_rest(
    request: web.Request, response: web.StreamResponse, records: AsyncGenerator[list[Record], None]
) -> None:
    try:
        async for some in records:
            await _send(request, response, some)
    except GemmaError as error:
        await _send(request, response, [error_record(error)])


async def _send(
    request: web.Request, response: web.StreamResponse, records: Sequence[Record]
) -> None:
    """The records are written.

    Raises:
        ConnectionError: the client is gone, or has read nothing for WRITE_STALL_S.
    """
    lines = _encoder.encode_lines(records)
    if len(lines) < _FITS_BYTES and not _unsent_bytes(request):
        await response.write(lines)  # cannot wait, so it needs no timer
        return
    try:
        async with asyncio.timeout(WRITE_STALL_S):
            await response.write(lines)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionError("the client does not read") from None


def _unsent_bytes(request: web.Request) -> int:
    """What the client has not taken of earlier records."""
    return request.transport.get_write_buffer_size() if request.transport is not None else 0
