"""HTTP to the daemon over its Unix socket, or over TCP where that is asked for.

`GEMMA_SOCKET`, when set, wins; else `GEMMA_HOST`, when set, means TCP; else the default socket.
"""

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from gemmacli.http import NotHttp, Response, send
from gemmacli.json_object import Json
from gemmad.api.errors import DaemonUnreachable, GemmaError
from gemmad.api.paths import TcpAddress, socket_path, tcp_address

CONNECT_TIMEOUT_S = 5.0
MAX_ERROR_BYTES = 64 * 1024
UPLOAD_PIECE_BYTES = 1 << 20


class NotRunning(DaemonUnreachable):
    """Nothing listens there, so a daemon may be started."""


class NotOurs(DaemonUnreachable):
    """Something answers, but not with the daemon's HTTP."""


class Readable(Protocol):
    """Where the bytes of an upload come from."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` further bytes; none at the end."""


class Upload(NamedTuple):
    """A body of bytes, sent as they are read."""

    content: Readable
    size: int


class Endpoint(NamedTuple):
    """Where the daemon is expected: a Unix socket, or TCP when `socket` is None."""

    socket: Path | None
    tcp: TcpAddress

    @property
    def is_local(self) -> bool:
        """A daemon started here would be found there."""
        return self.socket is not None or self.tcp.host in ("127.0.0.1", "localhost", "::1")

    @property
    def host(self) -> str:
        """What a request names as its host."""
        if self.socket:
            return "localhost"
        name = f"[{self.tcp.host}]" if ":" in self.tcp.host else self.tcp.host
        return f"{name}:{self.tcp.port}"

    def __str__(self) -> str:
        return str(self.socket) if self.socket else f"http://{self.tcp.host}:{self.tcp.port}"


def endpoint(env: Mapping[str, str]) -> Endpoint:
    """Where the environment says that the daemon is.

    Raises:
        BadRequest: GEMMA_SOCKET or GEMMA_HOST is malformed.
    """
    tcp = tcp_address(env)
    if tcp.host in ("0.0.0.0", "::"):  # noqa: S104 - where a daemon listens on all addresses
        tcp = TcpAddress("127.0.0.1", tcp.port)
    by_tcp = env.get("GEMMA_HOST") and not env.get("GEMMA_SOCKET")
    unix = hasattr(socket, "AF_UNIX") and not by_tcp
    return Endpoint(socket_path(env) if unix else None, tcp)


@contextmanager
def exchange(
    where: Endpoint,
    method: str,
    path: str,
    body: Json | Upload | None = None,
    timeout_s: float | None = None,
    expected: tuple[int, ...] = (),
) -> Iterator[Response]:
    """A request and its successful response; leaving the block closes both, also half-read.

    `timeout_s` bounds each read; None waits as long as the daemon keeps the connection. A status
    in `expected` is an answer, not a refusal.

    Raises:
        DaemonUnreachable: nothing answers, or it stopped in the middle.
        GemmaError: the daemon refused the request; the class follows the error's code.
    """
    response = None
    with _connected(where) as connection:
        connection.settimeout(timeout_s)
        try:
            _request(connection, where, method, path, body)
            response = Response(connection, method)
            if response.status >= 400 and response.status not in expected:
                raise error_from_body(response.status, response.read(MAX_ERROR_BYTES))
            yield response
        except (NotHttp, OSError) as error:
            raise _broken_off(where, error) from error
        finally:
            if response is not None:
                response.close()


def _connected(where: Endpoint) -> socket.socket:
    try:
        return _dial(where)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunning(
            f"No daemon answers at {where}.", fix="Start it with: gemma serve"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise DaemonUnreachable(f"Cannot connect to the daemon at {where}: {reason}.") from error


def _dial(where: Endpoint) -> socket.socket:
    if where.socket is None:
        return socket.create_connection(where.tcp, CONNECT_TIMEOUT_S)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect(str(where.socket))
    except OSError:
        connection.close()
        raise
    return connection


def _request(
    connection: socket.socket, where: Endpoint, method: str, path: str, body: Json | Upload | None
) -> None:
    headers = {"Host": where.host, "Accept-Encoding": "identity", "Connection": "close"}
    content: Iterable[bytes] = ()
    if isinstance(body, Upload):
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(body.size)}
        content = _pieces(body)
    elif body is not None:
        data = json.dumps(body).encode()
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        content = [data]
    with suppress(BrokenPipeError, ConnectionResetError):
        # A daemon that refuses says why and hangs up before it has read all: its answer counts.
        send(connection, method, path, headers, content)


def _pieces(body: Upload) -> Iterator[bytes]:
    """Exactly as many bytes as were promised, or fewer where the file has become shorter."""
    left = body.size
    while left and (piece := body.content.read(min(left, UPLOAD_PIECE_BYTES))):
        left -= len(piece)
        yield piece


def _broken_off(where: Endpoint, error: Exception) -> GemmaError:
    if isinstance(error, NotHttp):
        return NotOurs(f"What listens at {where} is not the Gemma daemon.")
    if isinstance(error, TimeoutError):
        return DaemonUnreachable(f"The daemon at {where} did not answer in time.")
    return went_away(where)


def went_away(where: Endpoint) -> DaemonUnreachable:
    """The connection ended before the answer did."""
    return DaemonUnreachable(
        f"The daemon at {where} went away before it had answered.",
        fix="Its log says why; the next command starts it again.",
    )


def error_from_body(status: int, body: bytes) -> GemmaError:
    """The error that a refusal's body carries, as its own class."""
    try:
        record = json.loads(body)
    except ValueError:
        record = None
    if not isinstance(record, dict) or "error" not in record:
        return NotOurs(f"The daemon answered with HTTP status {status} and no explanation.")
    return error_from_record(record)


def error_from_record(record: Json) -> GemmaError:
    """`{"error": text, "code": code}` as the class of that code, GemmaError for an unknown one."""
    classes = {kind.code: kind for kind in _all_errors(GemmaError)}
    return classes.get(str(record.get("code")), GemmaError)(str(record["error"]))


def _all_errors(root: type[GemmaError]) -> Iterator[type[GemmaError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == root.__module__:
            yield kind
            yield from _all_errors(kind)
