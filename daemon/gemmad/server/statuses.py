"""The lines of a job on their way to a client, streamed or as one answer."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from aiohttp import web

from gemmad.dialects.ollama import models
from gemmad.dialects.ollama.replies import Record
from gemmad.dialects.ollama.requests import NameBody
from gemmad.pulls.job import PullStatus
from gemmad.server.streams import json_response, ndjson

HOLD_S = 10.0  # so long may a plan take whose failure still has a status of its own


async def pull_records(
    statuses: AsyncGenerator[PullStatus, None],
) -> AsyncGenerator[Record, None]:
    """The lines of a job as records; a reader that leaves leaves the job."""
    async with contextlib.aclosing(statuses):
        async for status in statuses:
            yield models.pull_status(status)


async def told(
    request: web.Request, body: NameBody, records: AsyncGenerator[Record, None]
) -> web.StreamResponse:
    """The records as they come, or only the last one when no stream is wanted."""
    if body.stream is not False:
        return await ndjson(request, _held(records))
    last: Record = {"status": "success"}
    async with contextlib.aclosing(records):
        async for record in records:
            last = record
    return json_response(last)


async def _held(records: AsyncGenerator[Record, None]) -> AsyncGenerator[Record, None]:
    """The records; the first is held back until there is a second.

    An unknown name or a full disk is then an HTTP status, not a line in a stream that began well.
    """
    async with contextlib.aclosing(records):
        first = await anext(records, None)
        second = asyncio.ensure_future(anext(records, None))
        try:
            await asyncio.wait({second}, timeout=HOLD_S)
            if second.done():
                second.result()
            if first is not None:
                yield first
            if (record := await second) is not None:
                yield record
        finally:
            second.cancel()
            await asyncio.wait({second})
        async for record in records:
            yield record
