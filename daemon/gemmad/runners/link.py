"""Frames over a runner's channel, with back-pressure in both directions.

Reading: nothing is taken from the socket beyond asyncio's buffer until `receive` is called, so a
runner that talks too fast waits. Writing: `send` waits while the runner does not read.
"""

import asyncio
import contextlib
import socket
from collections import deque

from gemmad.wire import FrameSplitter, FromRunner, ToRunner, decode_from_runner, encode

_READ_BYTES = 65536


class Link:
    """The daemon's end of a channel; one task reads it, any task writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._splitter = FrameSplitter()
        self._bodies: deque[bytes] = deque()

    @classmethod
    async def open(cls, channel: socket.socket) -> "Link":
        """A link over `channel`, which it owns from here on."""
        reader, writer = await asyncio.open_unix_connection(sock=channel)
        return cls(reader, writer)

    async def send(self, message: ToRunner) -> None:
        """`message` is on its way and the runner's buffer has room again.

        Raises:
            WireError: the message is larger than a frame may be.
            ConnectionError: the runner closed its end.
        """
        self.post(message)
        await self._writer.drain()

    def post(self, message: ToRunner) -> None:
        """`message` is queued behind what was sent before; for small frames that cannot wait."""
        self._writer.write(encode(message))

    async def receive(self) -> FromRunner | None:
        """The next message, or None when the runner closed its end.

        Raises:
            WireError: bytes that are not a frame of this protocol.
        """
        while not self._bodies:
            data = await self._read()
            if not data:
                return None
            self._bodies.extend(self._splitter.feed(data))
        return decode_from_runner(self._bodies.popleft())

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(_READ_BYTES)
        except ConnectionError:  # a reset is an end of file with unread bytes on the other side
            return b""

    async def close(self) -> None:
        """The channel is closed; the runner reads end of file."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
