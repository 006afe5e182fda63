"""Content-addressed files: written aside, hashed, synced, and named by their hash only then."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from gemmad.api.errors import PullFailed, StoreBroken
from gemmad.core import Digest, FileEntry, digest_hex
from gemmad.store.disk import PUBLISHED_NS, Disk
from gemmad.store.paths import StorePaths


class Ingest:
    """One blob being written; `commit` publishes it, anything else leaves no name behind.

    One writer a digest at a time: the caller sees to that.
    """

    def __init__(self, entry: FileEntry, paths: StorePaths, disk: Disk) -> None:
        """The part file is open and empty.

        Raises:
            OSError: it could not be made.
        """
        self._entry = entry
        self._part = paths.part(entry.digest)
        self._final = paths.blob(entry.digest)
        self._disk = disk
        self._hash = hashlib.sha256()
        self._written = 0
        disk.make_directory(self._part.parent)
        self._fd: int | None = disk.open_new(self._part)

    def write(self, chunk: bytes) -> None:
        """`chunk` follows what was written before.

        Raises:
            PullFailed: more bytes came than were announced.
            OSError: the disk refused.
        """
        assert self._fd is not None
        self._written += len(chunk)
        if self._written > self._entry.size:
            raise self._differs(f"is longer than the {self._entry.size} bytes announced")
        self._hash.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._disk.write(self._fd, rest) :]

    def commit(self) -> None:
        """The blob exists under its digest, whole and on the disk.

        Raises:
            PullFailed: size or hash differ from what was announced; nothing is published.
            OSError: the disk refused; nothing is published.
        """
        assert self._fd is not None
        self._verify()
        # A failed fsync marks the pages clean: never retried, the file is given up (abort).
        self._disk.sync(self._fd)
        self._close()
        self._disk.seal(self._part)
        make_durable_directory(self._disk, self._final.parent)
        self._disk.rename(self._part, self._final)
        self._disk.sync_directory(self._final.parent)
        self._disk.sync_directory(self._part.parent)

    def abort(self) -> None:
        """The part file is closed and gone, as far as the disk lets it."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._disk.unlink(self._part)

    def _verify(self) -> None:
        if self._written != self._entry.size:
            raise self._differs(f"has {self._written} bytes, {self._entry.size} were announced")
        if self._hash.hexdigest() != digest_hex(self._entry.digest):
            raise self._differs(f"came as sha256:{self._hash.hexdigest()}")

    def _differs(self, how: str) -> PullFailed:
        return PullFailed(f"The file {self._entry.digest} {how}.", fix="Pull again.")

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._disk.close(fd)


def make_durable_directory(disk: Disk, path: Path) -> None:
    """The directory and its new parents exist, and their names have reached the disk."""
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    if path.exists():
        return
    disk.make_directory(path)
    for made in reversed(missing):
        disk.sync_directory(made.parent)


class Blobs:
    """The blobs of a store. A name that exists is whole."""

    def __init__(self, paths: StorePaths, disk: Disk) -> None:
        self._paths = paths
        self._disk = disk

    def begin(self, entry: FileEntry) -> Ingest:
        """A new ingest of `entry`; what an earlier one left behind is overwritten."""
        return Ingest(entry, self._paths, self._disk)

    def add(self, entry: FileEntry, chunks: Iterable[bytes]) -> None:
        """The blob `entry` exists with the content of `chunks`; a good one is kept as it is.

        Raises:
            PullFailed: the content is not what `entry` says.
            OSError: the disk refused.
        """
        if self.has(entry):
            return
        ingest = self.begin(entry)
        try:
            for chunk in chunks:
                ingest.write(chunk)
            ingest.commit()
        except (PullFailed, OSError):
            ingest.abort()
            raise

    def has(self, entry: FileEntry) -> bool:
        """Whether the blob is there and passes the load-time check."""
        try:
            self.check(entry)
        except StoreBroken:
            return False
        return True

    def check(self, entry: FileEntry) -> Path:
        """The blob's path, after a check of kind, size and time; a changed time costs a full hash.

        Raises:
            StoreBroken: the blob is missing, not a file, or not what its name says.
        """
        path = self._paths.blob(entry.digest)
        try:
            facts = self._disk.facts(path)
            if not _plausible(facts, entry):
                raise StoreBroken(f"The file {entry.digest} in the store is damaged.", fix=_PULL)
            if facts.st_mtime_ns != PUBLISHED_NS:
                self._rehash(path, entry.digest)
        except FileNotFoundError as error:
            raise StoreBroken(f"The file {entry.digest} is not in the store.", fix=_PULL) from error
        except OSError as error:
            what = error.strerror or str(error)
            raise StoreBroken(
                f"The file {entry.digest} cannot be read: {what}.", fix=_PULL
            ) from error
        return path

    def read(self, value: Digest, limit: int = 1 << 20) -> bytes:
        """At most `limit` bytes of a blob.

        Raises:
            StoreBroken: it cannot be read.
        """
        try:
            return self._disk.read(self._paths.blob(value), limit)
        except OSError as error:
            raise StoreBroken(f"The file {value} cannot be read.", fix=_PULL) from error

    def remove(self, value: Digest) -> None:
        """The blob is gone."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(self._paths.blob(value))

    def _rehash(self, path: Path, value: Digest) -> None:
        actual = hashlib.sha256()
        for chunk in self._disk.chunks(path):
            actual.update(chunk)
        if actual.hexdigest() != digest_hex(value):
            raise StoreBroken(f"The file {value} in the store was changed.", fix=_PULL)
        self._disk.seal(path)


_PULL = "Pull the model again to repair it."


def _plausible(facts: os.stat_result, entry: FileEntry) -> bool:
    return stat.S_ISREG(facts.st_mode) and facts.st_size == entry.size
