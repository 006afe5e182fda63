"""Sends records as NDJSON, one a line; a client that leaves or never reads ends the work."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
from aiohttp import web

from gemmad.api.errors import GemmaError
from gemmad.dialects.ollama.replies import Record, error_record

WRITE_STALL_S = 60.0
_encoder = msgspec.json.Encoder()


def json_response(value: object, status: int = 200) -> web.Response:
    """`value` as one JSON body."""
    return web.Response(body=_encoder.encode(value), status=status, content_type="application/json")


async def ndjson(request: web.Request, records: AsyncGenerator[Record, None]) -> web.StreamResponse:
    """All records have been sent, or the client is gone; either way `records` is closed.

    Raises:
        GemmaError: before the first record; later errors are the stream's last line.
    """
    async with contextlib.aclosing(records):
        first = await anext(records, None)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            if first is not None:
                await _send(request, response, first)
            await _send_rest(request, response, records)
            await response.write_eof()
    return response


async def _send_rest(
    request: web.Request, response: web.StreamResponse, records: AsyncGenerator[Record, None]
) -> None:
    try:
        async for record in records:
            await _send(request, response, record)
    except GemmaError as error:
        await _send(request, response, error_record(error))


async def _send(request: web.Request, response: web.StreamResponse, record: Record) -> None:
    """The record is written.

    Raises:
        ConnectionError: the client is gone, or has read nothing for WRITE_STALL_S.
    """
    try:
        async with asyncio.timeout(WRITE_STALL_S):
            await response.write(_encoder.encode(record) + b"\n")
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionError("the client does not read") from None
