"""Where the daemon listens and where its home is, as both the daemon and its clients compute it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gemmad.api.errors import BadRequest

DEFAULT_PORT = 11435
MAX_SOCKET_PATH_BYTES = 103  # sun_path: 104 on macOS, 108 on Linux, one for the NUL


class TcpAddress(NamedTuple):
    """Host and port of the TCP listener."""

    host: str
    port: int


def home_override(env: Mapping[str, str] = os.environ) -> Path | None:
    """`GEMMA_HOME`, under which store, state, logs, cache and socket then live together."""
    value = env.get("GEMMA_HOME")
    return Path(value).expanduser().absolute() if value else None


def socket_path(env: Mapping[str, str] = os.environ) -> Path:
    """The daemon's Unix socket: `GEMMA_SOCKET`, else below `GEMMA_HOME` or the runtime directory.

    Raises:
        BadRequest: the path is longer than the operating system allows for a socket.
    """
    path = _socket_candidate(env)
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise BadRequest(
            f"The socket path {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes.",
            fix="Set GEMMA_SOCKET to a shorter path.",
        )
    return path


def _socket_candidate(env: Mapping[str, str]) -> Path:
    if value := env.get("GEMMA_SOCKET"):
        return Path(value).expanduser().absolute()
    if home := home_override(env):
        return home / "run" / "gemmad.sock"
    return _runtime_directory(env) / "gemmad" / "gemmad.sock"


def _runtime_directory(env: Mapping[str, str]) -> Path:
    if value := env.get("XDG_RUNTIME_DIR"):
        return Path(value)
    if sys.platform == "linux" and os.access(f"/run/user/{os.getuid()}", os.W_OK):
        return Path(f"/run/user/{os.getuid()}")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path.home() / ".cache"


def tcp_address(env: Mapping[str, str] = os.environ) -> TcpAddress:
    """`GEMMA_HOST` as host and port; `127.0.0.1:11435` when unset. An `http://` prefix is accepted.

    Raises:
        BadRequest: the value is not `HOST`, `HOST:PORT`, `:PORT` or an `http://` URL of these.
    """
    value = env.get("GEMMA_HOST", "").strip()
    bare = value.removeprefix("http://").rstrip("/")
    host, port = _split_port(bare)
    if port is not None and not (port.isdigit() and 0 < int(port) < 65536):
        raise BadRequest(
            f"GEMMA_HOST is {value!r}, which has no valid port.",
            fix="Use HOST:PORT, e.g. 127.0.0.1:11435.",
        )
    return TcpAddress(host or "127.0.0.1", int(port) if port else DEFAULT_PORT)


def _split_port(bare: str) -> tuple[str, str | None]:
    if bare.startswith("["):  # [::1]:11435
        host, _, rest = bare[1:].partition("]")
        return host, rest.removeprefix(":") or None
    host, colon, port = bare.partition(":")
    return host, port if colon else None
