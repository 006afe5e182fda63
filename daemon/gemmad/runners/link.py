"""Frames over a runner's channel, with back-pressure in both directions.

Reading: nothing is taken from the socket beyond asyncio's buffer until `receive` is called, so a
runner that talks too fast waits. Writing: `send` waits while the runner does not read. What is sent
at once goes at once: many requests that come together wake the runner once.
"""

import asyncio
import contextlib
import socket
from collections import deque

from gemmad.wire import FrameSplitter, FromRunner, ToRunner, decode_from_runner, encode

_READ_BYTES = 65536


class _LosesNothing(asyncio.StreamReader):
    """A reader that still hands out what arrived before the channel broke.

    A runner that dies with our bytes unread resets the channel. asyncio then forgets what it had
    buffered and what the kernel still holds; both are words that a client waits for.
    """

    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self._channel = channel

    def set_exception(self, exc: BaseException) -> None:
        with contextlib.suppress(OSError):
            while data := self._channel.recv(_READ_BYTES):
                self.feed_data(data)
        self.feed_eof()


class Link:
    """The daemon's end of a channel; one task reads it, any task writes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, again: socket.socket
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._again = again  # the channel's second handle, for what asyncio leaves unread
        self._splitter = FrameSplitter()
        self._bodies: deque[bytes] = deque()
        self._unsent: list[bytes] = []  # frames for the end of this turn of the event loop

    @classmethod
    async def open(cls, channel: socket.socket) -> "Link":
        """A link over `channel`, which it owns from here on."""
        again = channel.dup()
        again.setblocking(False)
        reader, loop = _LosesNothing(again), asyncio.get_running_loop()
        transport, protocol = await loop.create_unix_connection(
            lambda: asyncio.StreamReaderProtocol(reader), sock=channel
        )
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop), again)

    async def send(self, message: ToRunner) -> None:
        """`message` is on its way and the runner's buffer has room again.

        Raises:
            WireError: the message is larger than a frame may be.
            ConnectionError: the runner closed its end.
        """
        self.post(message)
        await asyncio.sleep(0)  # behind the flush
        await self._writer.drain()

    def post(self, message: ToRunner) -> None:
        """`message` is queued behind what was sent before; for small frames that cannot wait."""
        self._unsent.append(encode(message))
        if len(self._unsent) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if self._unsent:
            frames, self._unsent = b"".join(self._unsent), []
            self._writer.write(frames)

    async def receive(self) -> FromRunner | None:
        """The next message, or None when the runner closed its end.

        Raises:
            WireError: bytes that are not a frame of this protocol.
        """
        while not self._bodies:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                return None
            self._bodies.extend(self._splitter.feed(data))
        return decode_from_runner(self._bodies.popleft())

    async def close(self) -> None:
        """The channel is closed; the runner reads end of file."""
        self._flush()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        self._again.close()
