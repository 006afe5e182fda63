"""The sockets the daemon listens on, made private, and the lock that keeps it the only one."""

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import TextIO

from gemmad.api.errors import GemmaError
from gemmad.api.paths import TcpAddress

_CONNECT_TIMEOUT_S = 1.0


class CannotListen(GemmaError):
    """Another daemon runs, or the socket cannot be made; the daemon does not start."""

    code = "cannot_listen"


class InstanceLock:
    """Held from construction to exit; the operating system drops it when the process dies."""

    def __init__(self, path: Path) -> None:
        """This process holds the lock and its pid stands in the file.

        Raises:
            CannotListen: another process holds it; the message names its pid.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="ascii")
        if not _try_lock(self._file):
            self._file.seek(0)
            holder = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise CannotListen(
                f"Another gemmad (pid {holder}) already runs for {path.parent}.",
                fix="Use it, stop it, or set another GEMMA_HOME.",
            )
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Another daemon may start."""
        self._file.close()


def _try_lock(file: TextIO) -> bool:
    if os.name == "nt":
        import msvcrt  # no fcntl there

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def unix_socket(path: Path) -> socket.socket:
    """A bound socket at `path`, mode 0600; one that a dead daemon left there is replaced.

    Raises:
        CannotListen: a daemon answers there, the name is taken by something else, or no permission.
    """
    try:
        # An existing directory is left as it is: it may be /tmp. The socket itself is private.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _reclaim(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # private from its first moment, not after a chmod
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
    except OSError as error:
        raise CannotListen(
            f"The socket {path} cannot be made: {error.strerror}.", fix="Set GEMMA_SOCKET."
        ) from error
    return listener


def _reclaim(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise CannotListen(f"{path} is in the way and is no socket.", fix="Set GEMMA_SOCKET.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
            probe.connect(os.fspath(path))
            raise CannotListen(f"A daemon already answers on {path}.", fix="Use it, or stop it.")
    path.unlink(missing_ok=True)


def tcp_socket(address: TcpAddress) -> socket.socket:
    """A bound TCP socket.

    Raises:
        OSError: the port is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
    except OSError:
        listener.close()
        raise
    return listener
