"""The part of HTTP/1.1 that one request to the daemon needs; `http.client` costs 45 ms to import.

A request is one head, a body of a known length, and `Connection: close`. A response's body has a
Content-Length, comes in chunks, or ends with the connection.
"""

import socket
from collections.abc import Iterable, Iterator
from io import BufferedReader

MAX_LINE_BYTES = 64 * 1024
MAX_HEADERS = 100
RECEIVE_BYTES = 256 * 1024
_HUNG_UP = "the other side hung up within its answer"


class NotHttp(Exception):
    """What answers does not speak HTTP, or breaks its rules."""


class Response:
    """The status and body of an answer, read as it comes."""

    def __init__(self, sock: socket.socket, method: str) -> None:
        """Reads the head.

        Raises:
            NotHttp: the other side speaks another protocol.
            ConnectionError: it hung up within the head.
            OSError: reading failed or took too long.
        """
        file = sock.makefile("rb", RECEIVE_BYTES)
        assert isinstance(file, BufferedReader)
        self._file = file
        try:
            self.status = self._status()
            while 100 <= self.status < 200:
                self._headers()
                self.status = self._status()
            self._pieces = self._body(method, self._headers())
        except BaseException:
            self.close()
            raise
        self._rest = b""

    def read(self, limit: int | None = None) -> bytes:
        """The rest of the body, or its first bytes up to `limit`."""
        parts, size = [self._rest], len(self._rest)
        while limit is None or size < limit:
            if not (piece := next(self._pieces, b"")):
                break
            parts.append(piece)
            size += len(piece)
        whole = b"".join(parts)
        end = len(whole) if limit is None else limit
        self._rest = whole[end:]
        return whole[:end]

    def readline(self) -> bytes:
        """The next line with its end; the last one may have none, and b"" follows it."""
        parts = []
        piece = self._rest or next(self._pieces, b"")
        while piece and b"\n" not in piece:
            parts.append(piece)
            piece = next(self._pieces, b"")
        line, end, self._rest = piece.partition(b"\n")
        return b"".join([*parts, line, end])

    def close(self) -> None:
        """Nothing more is read; the socket is its owner's to close."""
        self._file.close()

    def _status(self) -> int:
        words = self._line().split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise NotHttp("it answers without a status line")
        return int(words[1])

    def _headers(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        while line := self._line().strip():
            name, _, value = line.partition(b":")
            found[name.strip().lower()] = value.strip()
            if len(found) > MAX_HEADERS:
                raise NotHttp("its answer has too many headers")
        return found

    def _body(self, method: str, headers: dict[bytes, bytes]) -> Iterator[bytes]:
        if method == "HEAD" or self.status in (204, 304):
            return iter(())
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            return self._chunks()
        length = headers.get(b"content-length")
        if length is None:
            return iter(lambda: self._file.read1(RECEIVE_BYTES), b"")
        return self._counted(_number(length, 10))

    def _chunks(self) -> Iterator[bytes]:
        while size := _number(self._line().partition(b";")[0].strip(), 16):
            yield from self._counted(size)
            self._line()
        while self._line().strip():
            pass  # trailers say nothing to us

    def _counted(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._file.read1(min(size, RECEIVE_BYTES))
            if not piece:
                raise ConnectionError(_HUNG_UP)
            size -= len(piece)
            yield piece

    def _line(self) -> bytes:
        line = self._file.readline(MAX_LINE_BYTES)
        if len(line) == MAX_LINE_BYTES:
            raise NotHttp("a line of its answer has no end")
        if not line.endswith(b"\n"):
            raise ConnectionError(_HUNG_UP)
        return line


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise NotHttp(f"{text[:20]!r} is no length of a body")
    return number


def send(
    sock: socket.socket, method: str, path: str, headers: dict[str, str], body: Iterable[bytes]
) -> None:
    """The request is on its way, its body piece by piece.

    Raises:
        OSError: writing failed; the other side may have answered nevertheless.
    """
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    for piece in body:
        sock.sendall(piece)
