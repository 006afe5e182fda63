"""A disk that fails at one chosen call: the process dies there, or the call returns an error."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gemmad.store.disk import Disk

MODES = ("kill", "kill-after", "eio", "enospc", "short")
WRITES = ("write", "write_at")
_SYNCS = ("sync", "sync_directory")  # recorded, not done: a dead process leaves the kernel alive
# `open_new` and `read` are made of others of this list; `walk` is one call when it begins.
_CALLS = (
    "make_directory", "remove_directory", "names", "free", "facts", "rename", "unlink",
    "link", "seal", "create", "open_own", "open_existing", "close", "truncate", "write",
    "write_at", "read_at", "open_facts", "uncache", "lock", "clone", *_SYNCS,
)  # fmt: skip
_OPENS = ("create", "open_own", "open_existing")


class UnsyncedDisk(Disk):
    """Waits for no disk: the kernel outlives what tests kill."""

    def sync(self, fd: int) -> None:
        """Not for tests."""

    def sync_directory(self, path: Path) -> None:
        """Not for tests."""


class Killed(BaseException):
    """The process died here; nothing after it happens."""


class FaultyDisk(Disk):
    """Counts calls; call number `fail_at` fails as `mode` says. Syncs are recorded, not done.

    kill: the process dies before the call. kill-after: after it. short: it dies in a write, half
    done. less: a write does half and says so. eio, enospc: the call does nothing and says why.
    """

    def __init__(
        self, fail_at: int | None = None, mode: str = "kill", *, reflinks: bool = False
    ) -> None:
        self.calls: list[str] = []
        self._reflinks = reflinks
        self.failed: str | None = None  # the call that failed
        self._fail_at = fail_at
        self._mode = mode
        self._dead = False
        self._open: set[int] = set()
        for name in _CALLS:
            real = (lambda *_: None) if name in _SYNCS else getattr(self, name)
            setattr(self, name, self._counted(name, real))

    def _counted(self, name: str, real: Callable) -> Callable:
        def call(*args):
            if self._dead:
                raise Killed
            path = next((arg.name for arg in args if isinstance(arg, Path)), "")
            self.calls.append(f"{name} {path}".strip())
            if len(self.calls) == self._fail_at:
                self.failed = self.calls[-1]
                return self._fail(name, real, args)
            return self._tracked(name, real(*args), args)

        return call

    def _tracked(self, name: str, result, args):
        if name in _OPENS:
            self._open.add(result)
        if name == "close":
            self._open.discard(args[0])
        return result

    @property
    def open_files(self) -> int:
        """How many descriptors are open."""
        return len(self._open)

    def clone(self, source: int, destination: int) -> None:
        """As a file system with reflinks does it, if it is one."""
        if not self._reflinks:
            raise OSError(errno.EOPNOTSUPP, "no reflinks")
        os.sendfile(destination, source, 0, os.fstat(source).st_size)

    def _fail(self, name: str, real: Callable, args: tuple):
        if self._mode == "less":
            return real(args[0], bytes(args[1])[: -(-len(args[1]) // 2)], *args[2:])
        if self._mode in ("eio", "enospc"):
            if name == "close":
                self._tracked(name, real(*args), args)  # Linux closes and says that it failed
            raise OSError(getattr(errno, self._mode.upper()), self._mode)
        if self._mode == "kill-after":
            self._tracked(name, real(*args), args)
        if self._mode == "short" and name in WRITES:
            real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
        return self._die()

    def _die(self) -> NoReturn:
        self._dead = True
        for fd in self._open:
            with contextlib.suppress(OSError):
                os.close(fd)
        raise Killed
