"""Reads an answer event by event, however many came together."""

import contextlib
from collections.abc import AsyncGenerator

from gemmad.wire import Delta, Done


async def each_of(
    answer: AsyncGenerator[list[Delta | Done], None],
) -> AsyncGenerator[Delta | Done, None]:
    """Its events one at a time; closing it closes the answer."""
    async with contextlib.aclosing(answer):
        async for events in answer:
            for event in events:
                yield event
