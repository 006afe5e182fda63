"""One blob written from its first byte to its last, hashed on the way; it cannot be resumed."""

import contextlib
import hashlib
from collections.abc import Callable

from gemmad.api.errors import PullFailed
from gemmad.core import ByteCount, Digest, FileEntry, digest_hex
from gemmad.store.disk import Disk
from gemmad.store.paths import StorePaths
from gemmad.store.publishing import publish, write_all


class Ingest:
    """A blob being written; `commit` publishes it, `abort` leaves nothing behind."""

    def __init__(
        self,
        digest: Digest,
        size: ByteCount | None,
        paths: StorePaths,
        disk: Disk,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        """The file is open and empty; no `size` means that it is not known ahead.

        Raises:
            OSError: it could not be made.
        """
        self._digest, self._size = digest, size
        self._paths, self._disk, self._released = paths, disk, released
        self._new = paths.new(digest)
        self._hash = hashlib.sha256()
        self._written = 0
        disk.make_directory(paths.ingest)
        self._fd: int | None = disk.open_new(self._new)

    def write(self, chunk: bytes | memoryview) -> None:
        """`chunk` follows what was written before.

        Raises:
            PullFailed: more bytes came than were announced.
            OSError: the disk refused.
        """
        assert self._fd is not None
        self._written += len(chunk)
        if self._size is not None and self._written > self._size:
            raise self._differs(f"is longer than the {self._size} bytes announced")
        self._hash.update(chunk)
        write_all(self._fd, chunk, self._disk)

    def commit(self) -> FileEntry:
        """The blob exists under its digest, whole and on the disk.

        Raises:
            PullFailed: size or hash differ from what was announced; nothing is published.
            OSError: the disk refused; nothing is published, or what is there is whole.
        """
        assert self._fd is not None
        self._verify()
        # A failed fsync marks the pages clean: never retried, the file is given up (abort).
        self._disk.sync(self._fd)
        self._close()
        publish(self._new, self._digest, self._paths, self._disk)
        self._released()
        return FileEntry(self._digest, ByteCount(self._written))

    def abort(self) -> None:
        """The file is closed and gone, as far as the disk lets it."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._disk.unlink(self._new)
        self._released()

    def _verify(self) -> None:
        if self._size is not None and self._written != self._size:
            raise self._differs(f"has {self._written} bytes, {self._size} were announced")
        if self._hash.hexdigest() != digest_hex(self._digest):
            raise self._differs(f"came as sha256:{self._hash.hexdigest()}")

    def _differs(self, how: str) -> PullFailed:
        return PullFailed(f"The file {self._digest} {how}.", fix="Pull again.")

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._disk.close(fd)
