"""Decides whether a request may come in at all; pure. The order of the rules is their priority.

1. Host: over TCP it must be our own loopback address and port. (DNS rebinding)
2. Origin and fetch metadata: a request that a web page caused is refused, on every transport.
3. Content: bodies are JSON, neither encoded nor an upgrade. (A web form cannot send JSON.)
   Only a blob is any bytes, named by their hash: what a form would send has another one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gemmad.api.errors import BadRequest, GemmaError, Refused

_HOSTS = ("127.0.0.1", "[::1]", "localhost")
_BODY_METHODS = ("POST", "PUT", "PATCH", "DELETE")
_BLOBS = "/api/blobs/"
# Ollama's clients send one of the first two; others leave it out.
_BLOB_KINDS = ("application/octet-stream", "application/json", "")
_OWN_SITE = ("", "none", "same-origin")


@dataclass(frozen=True, slots=True)
class Incoming:
    """What the guard looks at."""

    method: str
    port: int | None  # of the TCP listener; None: the Unix socket, trusted by file permission
    hosts: Sequence[str]  # every Host header
    headers: Mapping[str, str]  # case-insensitive
    has_body: bool
    path: str = "/"


class Refusal(NamedTuple):
    """Why not, and with which status."""

    status: int
    error: GemmaError


def judge(request: Incoming) -> Refusal | None:
    """The refusal of a request, or None when it may come in."""
    return _host(request) or _origin(request) or _content(request)


def _host(request: Incoming) -> Refusal | None:
    if request.port is None:
        return None
    if len(request.hosts) == 1 and request.hosts[0].lower() in _own_hosts(request.port):  # 1
        return None
    shown = ", ".join(request.hosts)[:200]
    return Refusal(
        421,
        Refused(
            f"The Host header {shown!r} is not this daemon's address.",
            fix=f"Use http://127.0.0.1:{request.port} or http://localhost:{request.port}.",
        ),
    )


def _own_hosts(port: int) -> frozenset[str]:
    with_port = [f"{host}:{port}" for host in _HOSTS]
    return frozenset((*with_port, *_HOSTS) if port == 80 else with_port)


def _origin(request: Incoming) -> Refusal | None:
    origin = request.headers.get("Origin")
    if origin is not None:  # 2
        return _refused(
            f"The web origin {origin[:200]!r} may not use this daemon.",
            "Call it from a program, not from a web page; no origins can be allowed yet.",
        )
    if request.headers.get("Sec-Fetch-Site", "") not in _OWN_SITE:  # 2
        return _refused(
            "A web page of another site caused this request.", "Call it from a program."
        )
    if request.headers.get("Sec-Fetch-Mode") == "navigate":  # 2
        return _refused("This is an API, not a page to open in a browser.", "Use gemma or curl.")
    return None


def _content(request: Incoming) -> Refusal | None:
    headers = request.headers
    if "Upgrade" in headers:  # 3
        return Refusal(400, BadRequest("No protocol upgrade is offered.", fix="Use plain HTTP."))
    if headers.get("Content-Encoding", "identity").lower() != "identity":  # 3
        return Refusal(415, BadRequest("Compressed bodies are refused.", fix="Send plain JSON."))
    if request.method in _BODY_METHODS and request.has_body:
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        blob = request.path.startswith(_BLOBS) and kind in _BLOB_KINDS
        if kind != "application/json" and not blob:  # 3
            return Refusal(
                415,
                BadRequest(
                    f"The Content-Type is {kind[:80]!r}.",
                    fix="Send Content-Type: application/json.",
                ),
            )
    return None


def _refused(what: str, fix: str) -> Refusal:
    return Refusal(403, Refused(what, fix=fix))
