"""Every call the store makes to the file system, one method each, so that tests can fail any."""

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# Windows has none of these; there the flags are no-ops.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a planted FIFO must not hang the open
_BINARY = getattr(os, "O_BINARY", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_SAFE = _NOFOLLOW | _NONBLOCK | _BINARY | _CLOEXEC

_PIECE_BYTES = 1 << 16

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_FULL_SYNC = 51  # macOS: F_FULLFSYNC; there fsync leaves the data in the drive's cache

# A published file carries this time (as in the Nix store), so a later write shows in its mtime.
PUBLISHED_NS = 1_000_000_000


class Disk:
    """The real file system. Methods raise OSError."""

    # --- directories ---

    def make_directory(self, path: Path) -> None:
        """The directory exists, private to this user when made here; so do its parents."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

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

    def names(self, path: Path) -> list[str]:
        """The names in the directory, in order; none when there is no such directory."""
        try:
            return sorted(os.listdir(path))  # noqa: PTH208 - names, not paths: they are untrusted
        except FileNotFoundError:
            return []

    def walk(self, root: Path) -> Iterator[Path]:
        """Every name below `root` that is not a directory, in order."""
        for directory, folders, names in os.walk(root):
            folders.sort()
            yield from (Path(directory, name) for name in sorted(names))

    def free(self, path: Path) -> int:
        """Bytes that this user may still write to the file system of `path`."""
        return shutil.disk_usage(path).free

    # --- names ---

    def facts(self, path: Path) -> os.stat_result:
        """What the name itself is; links are not followed."""
        return path.lstat()

    def rename(self, source: Path, destination: Path) -> None:
        """`destination` is what `source` was, in one step."""
        source.replace(destination)

    def unlink(self, path: Path) -> None:
        """The name is gone."""
        path.unlink()

    def link(self, source: Path, destination: Path) -> None:
        """`destination` is a second name of the file `source`; a link is not followed."""
        os.link(source, destination, follow_symlinks=False)

    def seal(self, path: Path) -> None:
        """The file is read-only and carries the time of published files."""
        path.chmod(0o444)
        os.utime(path, ns=(PUBLISHED_NS, PUBLISHED_NS))

    # --- files ---

    def open_new(self, path: Path) -> int:
        """A descriptor on a new, empty file; whatever had that name has lost it, unchanged."""
        with contextlib.suppress(FileNotFoundError):
            self.unlink(path)
        return self.create(path)

    def create(self, path: Path) -> int:
        """A descriptor on a new, empty file; FileExistsError when the name is taken."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)

    def open_own(self, path: Path) -> int:
        """A descriptor on the regular file at `path`, made when missing, its content kept."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o600)
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            os.close(fd)
            raise OSError(f"{path.name} in the store is not a plain file of its own")
        return fd

    def open_existing(self, path: Path) -> int:
        """A descriptor to read the regular file at `path`; a link is not followed."""
        fd = os.open(path, os.O_RDONLY | _SAFE)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{path.name} is not a regular file")
        return fd

    def close(self, fd: int) -> None:
        """The descriptor is closed."""
        os.close(fd)

    def truncate(self, fd: int, size: int) -> None:
        """The file has this size."""
        os.ftruncate(fd, size)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Some bytes of `data` are written; returns how many."""
        return os.write(fd, data)

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Some bytes of `data` are written at `offset`; returns how many. Any thread may call."""
        return os.pwrite(fd, data, offset)

    def read_at(self, fd: int, buffer: memoryview, offset: int) -> int:
        """`buffer` begins with bytes of the file from `offset`; returns how many, 0 at its end."""
        return os.preadv(fd, [buffer], offset)

    def uncache(self, fd: int) -> None:
        """The next read of the file comes from the disk, where the system can be told so."""
        if sys.platform == "linux":
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self, path: Path, limit: int) -> bytes:
        """At most `limit` bytes of the regular file at `path`; links are not followed."""
        fd, data = self.open_existing(path), bytearray()
        try:
            buffer = memoryview(bytearray(min(limit, _PIECE_BYTES)))
            while count := self.read_at(fd, buffer[: limit - len(data)], len(data)):
                data += buffer[:count]
        finally:
            self.close(fd)
        return bytes(data)

    def open_facts(self, fd: int) -> os.stat_result:
        """What the open file is."""
        return os.fstat(fd)

    def sync(self, fd: int) -> None:
        """The file's data has reached the disk."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, _FULL_SYNC)
        else:
            os.fsync(fd)

    def lock(self, fd: int) -> bool:
        """The file is ours until it is closed or we die; False: another process has it."""
        if sys.platform == "win32":
            return True  # NOTE: two daemons on one store are kept apart by the daemon's own lock
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks
        return True

    def clone(self, source: int, destination: int) -> None:
        """The file `destination` shares the blocks of `source` until one of them is changed."""
        if sys.platform != "linux":
            raise OSError("no reflinks here")
        fcntl.ioctl(destination, _FICLONE, source)
