"""A threaded HTTP/1.1 listener whose answers are bytes, files, or wilfully broken."""

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from tests.fakes.hub.bodies import Body, send_body
from tests.fakes.hub.faults import Fault


@dataclass(slots=True)
class Seen:
    """One request as the log keeps it; `sent` grows while its body is sent."""

    where: str  # hub | cdn
    method: str
    path: str  # unquoted, without the query
    query: str
    headers: dict[str, str]  # names in lower case
    body: bytes = b""
    status: int = 0
    sent: int = 0  # bytes of the body
    fault: str = ""

    @property
    def token(self) -> str | None:
        """The bearer token that came with it."""
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None

    @property
    def range(self) -> str | None:
        """The range that was asked for."""
        return self.headers.get("range")


@dataclass(slots=True)
class Answer:
    """What goes back; `fault` spoils it on the way."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=Body)
    fault: Fault | None = None


class Responder(Protocol):
    """Decides every answer of a listener."""

    def answer(self, seen: Seen) -> Answer: ...


class Listener(ThreadingHTTPServer):
    """Listens on a free loopback port until `stop`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, where: str, host: str, responder: Responder, log: list[Seen]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.where = where
        self.responder = responder
        self.log = log
        self.stopping = threading.Event()
        self.netloc = f"{host}:{self.server_address[1]}"
        self.dials = 0  # connections accepted
        self.tls: ssl.SSLContext | None = None
        self.send_buffer = 0  # bytes; small: what is sent and never read stays small
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()  # `_open`: between the accepting thread and handlers
        self._thread = threading.Thread(target=self.serve_forever, args=(0.004,), daemon=True)

    def start(self) -> None:
        """Accepts connections in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """No connection is open and no port is bound."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def drop_connections(self) -> None:
        """Every open connection is cut, as by a restart of the server."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.dials += 1
        if self.send_buffer:
            request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of a hub."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def setup(self) -> None:
        if self.server.tls:
            self.request.settimeout(5)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        if self.server.tls:
            self.request.close()  # wrapping took the socket over: the listener's is empty

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        path = unquote(url.path)
        seen = Seen(self.server.where, self.command, path, url.query, headers, body)
        self.server.log.append(seen)
        with contextlib.suppress(OSError):
            self._reply(seen, self.server.responder.answer(seen))
            return
        self.close_connection = True

    do_HEAD = do_POST = do_GET

    def _reply(self, seen: Seen, answer: Answer) -> None:
        seen.status = answer.status
        seen.fault = answer.fault.kind if answer.fault else ""
        if seen.fault == "refuse":
            self.close_connection = True
            return
        self._head(answer)
        if seen.method != "HEAD":
            whole = send_body(
                self.connection, answer.body, answer.fault, seen, self.server.stopping
            )
            self.close_connection = self.close_connection or not whole

    def _head(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.fault and answer.fault.kind == "headers":
            for number in range(answer.fault.count):
                self.send_header(f"X-Filler-{number}", "x")
        if "Transfer-Encoding" not in answer.headers and "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(answer.body.length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """The log is `Listener.log`."""
