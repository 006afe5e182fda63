"""The runner's end of its channel: frames in with a time-out, frames out from any thread."""

import select
import socket
import threading
from collections.abc import Sequence

from gemmad.wire import FrameSplitter, FromRunner, ToRunner, decode_to_runner, encode

_READ_BYTES = 65536


class Disconnected(Exception):
    """The daemon closed its end."""


class Channel:
    """Read by the main thread alone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._splitter = FrameSplitter()
        self._lock = threading.Lock()  # main thread (pong) and engine thread (deltas) both send
        self._poller = select.poll()
        self._poller.register(connection, select.POLLIN)

    def send(self, *messages: FromRunner) -> None:
        """`messages` are in the channel, together; waits while the daemon does not read.

        Raises:
            Disconnected: there is no daemon any more.
        """
        frames = b"".join(map(encode, messages))
        try:
            with self._lock:
                self._connection.sendall(frames)
        except ConnectionError as error:
            raise Disconnected from error

    def receive(self, timeout_s: float | None) -> Sequence[ToRunner]:
        """Frames that have come, possibly none after `timeout_s`.

        Raises:
            Disconnected: there is no daemon any more.
            WireError: it sent something else than frames.
        """
        if not self._poller.poll(None if timeout_s is None else timeout_s * 1000):
            return ()
        try:
            data = self._connection.recv(_READ_BYTES)
        except ConnectionError as error:
            raise Disconnected from error
        if not data:
            raise Disconnected
        return [decode_to_runner(body) for body in self._splitter.feed(data)]
