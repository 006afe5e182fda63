"""A disk that fails at one chosen call: the process dies there, or the call returns an error."""

import contextlib
import errno
import os
from pathlib import Path
from typing import NoReturn

from gemmad.store.disk import Disk

MODES = ("kill", "kill-after", "eio", "enospc", "short")


class Killed(BaseException):
    """The process died here; nothing after it happens."""


class FaultyDisk(Disk):
    """Counts calls; call number `fail_at` fails as `mode` says. Syncs are recorded, not done."""

    def __init__(self, fail_at: int | None = None, mode: str = "kill") -> None:
        self.calls: list[str] = []
        self._fail_at = fail_at
        self._mode = mode
        self._dead = False
        self._open: set[int] = set()

    def _call(self, name: str, real, *args):
        if self._dead:
            raise Killed
        self.calls.append(f"{name} {args[0].name}" if isinstance(args[0], Path) else name)
        if len(self.calls) != self._fail_at:
            return real(*args)
        if self._mode in ("eio", "enospc"):
            raise OSError(getattr(errno, self._mode.upper()), self._mode)
        if self._mode == "kill-after":
            real(*args)
        if self._mode == "short" and name == "write":
            real(args[0], bytes(args[1])[: len(args[1]) // 2])
        return self._die()

    def _die(self) -> NoReturn:
        self._dead = True
        for fd in self._open:
            with contextlib.suppress(OSError):
                os.close(fd)
        raise Killed

    def make_directory(self, path: Path) -> None:
        self._call("mkdir", super().make_directory, path)

    def open_new(self, path: Path) -> int:
        fd = self._call("open", super().open_new, path)
        self._open.add(fd)
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return self._call("write", super().write, fd, data)

    def sync(self, fd: int) -> None:
        self._call("sync", lambda _: None, fd)

    def close(self, fd: int) -> None:
        self._call("close", super().close, fd)
        self._open.discard(fd)

    def seal(self, path: Path) -> None:
        self._call("seal", super().seal, path)

    def rename(self, source: Path, destination: Path) -> None:
        self._call("rename", super().rename, source, destination)

    def unlink(self, path: Path) -> None:
        self._call("unlink", super().unlink, path)

    def remove_directory(self, path: Path) -> None:
        self._call("rmdir", super().remove_directory, path)

    def sync_directory(self, path: Path) -> None:
        self._call("sync-dir", lambda _: None, path)
