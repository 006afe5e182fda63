"""Every call the store makes to the file system, one method each, so that tests can fail any."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

# Windows has none of these; there the flags are no-ops.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a planted FIFO must not hang the open
_BINARY = getattr(os, "O_BINARY", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)

# A published file carries this time (as in the Nix store), so a later write shows in its mtime.
PUBLISHED_NS = 1_000_000_000


class Disk:
    """The real file system. Methods raise OSError."""

    def make_directory(self, path: Path) -> None:
        """The directory exists, private to this user when made here; so do its parents."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open_new(self, path: Path) -> int:
        """A descriptor on an empty regular file at `path`; links and devices are refused."""
        flags = os.O_WRONLY | os.O_CREAT | _NOFOLLOW | _NONBLOCK | _BINARY | _CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            self._require_own_file(fd, path)
            os.ftruncate(fd, 0)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _require_own_file(self, fd: int, path: Path) -> None:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise OSError(f"{path.name} in the store is not a plain file of its own")

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Some bytes of `data` are written; returns how many."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """The file's data has reached the disk."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """The descriptor is closed."""
        os.close(fd)

    def seal(self, path: Path) -> None:
        """The file is read-only and carries the time of published files."""
        path.chmod(0o444)
        os.utime(path, ns=(PUBLISHED_NS, PUBLISHED_NS))

    def rename(self, source: Path, destination: Path) -> None:
        """`destination` is what `source` was, in one step."""
        source.replace(destination)

    def unlink(self, path: Path) -> None:
        """The name is gone."""
        path.unlink()

    def remove_directory(self, path: Path) -> None:
        """The empty directory is gone."""
        path.rmdir()

    def sync_directory(self, path: Path) -> None:
        """Names made or removed in the directory have reached the disk."""
        if os.name == "nt":
            return  # Windows cannot open a directory for fsync; NTFS journals names
        fd = os.open(path, os.O_RDONLY | _CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def facts(self, path: Path) -> os.stat_result:
        """What the name itself is; links are not followed."""
        return path.lstat()

    def read(self, path: Path, limit: int) -> bytes:
        """At most `limit` bytes of the regular file at `path`; links are not followed."""
        with os.fdopen(self._open_existing(path), "rb") as file:
            return file.read(limit)

    def chunks(self, path: Path, size: int = 1 << 20) -> Iterator[bytes]:
        """The content of the regular file at `path`, piece by piece."""
        with os.fdopen(self._open_existing(path), "rb") as file:
            while chunk := file.read(size):
                yield chunk

    def _open_existing(self, path: Path) -> int:
        fd = os.open(path, os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _BINARY | _CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{path.name} in the store is not a regular file")
        return fd

    def walk(self, root: Path) -> Iterator[Path]:
        """Every name below `root` that is not a directory, in order."""
        for directory, folders, names in os.walk(root):
            folders.sort()
            yield from (Path(directory, name) for name in sorted(names))
