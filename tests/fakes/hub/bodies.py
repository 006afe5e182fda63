"""Bodies on their way out: from memory or by sendfile, whole or spoilt by a fault."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.fakes.hub.faults import Fault

_PIECE = 4 << 20
_MEMORY_PIECE = 64 << 10
_ONE_BY_ONE = ("drip", "slow")


@dataclass(frozen=True, slots=True)
class Body:
    """`length` bytes of the content from `start` on."""

    content: bytes | Path = b""
    start: int = 0
    length: int = 0

    @classmethod
    def of(cls, content: bytes) -> "Body":
        """All of the content."""
        return cls(content, 0, len(content))


class Counter(Protocol):
    """Counts what was sent."""

    sent: int


def send_body(
    connection: socket.socket,
    body: Body,
    fault: Fault | None,
    counter: Counter,
    stopping: threading.Event,
) -> bool:
    """Sends the body as the fault has it; False: the connection ends here."""
    kind = fault.kind if fault else ""
    if fault and kind in ("flip", "swap", "other-file"):
        body, kind = Body.of(_spoilt(body, fault)), ""
    if fault and kind == "endless-json":
        return _endless(connection, counter, stopping)
    if fault and kind in _ONE_BY_ONE:
        return _slowly(connection, body, fault, counter, stopping)
    if fault and kind in ("reset", "truncate", "stall"):
        _send(connection, Body(body.content, body.start, min(fault.at, body.length)), counter)
        return _end(connection, fault, stopping)
    _send(connection, body, counter)
    return True


def _send(connection: socket.socket, body: Body, counter: Counter) -> None:
    if isinstance(body.content, bytes):
        view = memoryview(body.content)[body.start : body.start + body.length]
        for at in range(0, len(view), _MEMORY_PIECE):
            piece = view[at : at + _MEMORY_PIECE]
            with _counted(counter, len(piece)):
                connection.sendall(piece)
        return
    with body.content.open("rb") as file:
        at, end = body.start, body.start + body.length
        while at < end:
            wanted = min(_PIECE, end - at)
            with _counted(counter, wanted):
                sent = os.sendfile(connection.fileno(), file.fileno(), at, wanted)
                if not sent:
                    raise OSError("the file is shorter than it was")
            at += sent
            counter.sent -= wanted - sent


@contextlib.contextmanager
def _counted(counter: Counter, count: int) -> Iterator[None]:
    """Counted before it is sent: whoever has read the bytes finds them counted."""
    counter.sent += count
    try:
        yield
    except OSError:
        counter.sent -= count
        raise


def _end(connection: socket.socket, fault: Fault, stopping: threading.Event) -> bool:
    if fault.kind == "stall":
        stopping.wait(fault.seconds)
    if fault.kind == "reset":  # closing with linger 0 sends RST
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())
    return False


def _slowly(
    connection: socket.socket, body: Body, fault: Fault, counter: Counter, stopping: threading.Event
) -> bool:
    piece = 1 if fault.kind == "drip" else max(1, fault.rate // 50)
    pause = fault.seconds if fault.kind == "drip" else 0.02
    for at in range(body.start, body.start + body.length, piece):
        length = min(piece, body.start + body.length - at)
        _send(connection, Body(body.content, at, length), counter)
        if stopping.wait(pause):
            return False
    return True


def _endless(connection: socket.socket, counter: Counter, stopping: threading.Event) -> bool:
    piece = b'[{"id": "google/gemma-4-nano-it"},' * 2000
    with contextlib.suppress(OSError):
        while not stopping.is_set():
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            counter.sent += len(piece)
    return False


def read(body: Body) -> bytearray:
    """The bytes of a body."""
    if isinstance(body.content, bytes):
        return bytearray(body.content[body.start : body.start + body.length])
    with body.content.open("rb") as file:
        file.seek(body.start)
        return bytearray(file.read(body.length))


def _spoilt(body: Body, fault: Fault) -> bytes:
    if fault.kind == "swap":
        size = _size(body.content)
        start = 0 if body.start else max(0, size - body.length)
        return bytes(read(Body(body.content, start, body.length)))
    data = read(body)
    if fault.kind == "flip" and body.start <= fault.at < body.start + body.length:
        data[fault.at - body.start] ^= 1
    if fault.kind == "other-file":
        return bytes(data.translate(bytes(range(255, -1, -1))))
    return bytes(data)


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
