"""Content-addressed files: a name that exists is whole; made, checked, adopted and removed here."""

import contextlib
import os
import stat
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from gemmad.api.errors import PullFailed, StoreBroken
from gemmad.core import ByteCount, Digest, FileEntry
from gemmad.store.adoption import Adoption
from gemmad.store.disk import PUBLISHED_NS, Disk
from gemmad.store.hashing import Progress, hash_file, no_progress
from gemmad.store.ingest import Ingest
from gemmad.store.inside import require_inside
from gemmad.store.paths import StorePaths
from gemmad.store.publishing import make_durable_directory
from gemmad.store.sharing import Sharing
from gemmad.store.writers import Writers


class Blobs:
    """The blobs of a store. A name that exists is whole."""

    def __init__(self, paths: StorePaths, disk: Disk, writers: Writers) -> None:
        self._paths = paths
        self._disk = disk
        self._writers = writers
        self._sharing = Sharing(paths, disk)

    def begin(self, entry: FileEntry) -> Ingest:
        """A new ingest of `entry`; what an earlier one left behind is overwritten.

        Raises:
            Busy: the blob is being written.
            OSError: the disk refused.
        """
        return self._begin(entry.digest, entry.size)

    def receive(self, value: Digest) -> Ingest:
        """A new ingest of a blob whose size is not known ahead. Errors as of `begin`."""
        return self._begin(value, None)

    def add(self, entry: FileEntry, chunks: Iterable[bytes]) -> None:
        """The blob `entry` exists with the content of `chunks`; a good one is kept as it is.

        Raises:
            Busy: the blob is being written.
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

    def adopt(
        self, entry: FileEntry, path: Path, progress: Progress = no_progress, *, link: bool = True
    ) -> bool:
        """The blob `entry` exists, taken from another program's file; see adoption.py.

        `link=False` when that file may be changed in place: the blob would change with it.
        False when `path` is something else or cannot be read.

        Raises:
            Busy: the blob is being written.
            OSError: the store's own disk refused.
        """
        if self.has(entry):
            return True
        with self._writers.claimed(entry.digest):
            adoption = Adoption(entry, self._paths, self._disk, self._sharing, progress)
            return adoption.take(path, link=link)

    def has(self, entry: FileEntry) -> bool:
        """Whether the blob is there and passes the load-time check."""
        try:
            self.check(entry)
        except StoreBroken:
            return False
        return True

    def entry(self, value: Digest) -> FileEntry | None:
        """The entry of a blob that is there and passes the load-time check."""
        try:
            size = ByteCount(self._disk.facts(self._paths.blob(value)).st_size)
        except OSError:
            return None
        found = FileEntry(value, size)
        return found if self.has(found) else None

    def present(self, entry: FileEntry) -> bool:
        """Whether a file of that size is there: the quick look of a list."""
        try:
            return _plausible(self._disk.facts(self._paths.blob(entry.digest)), entry)
        except OSError:
            return False

    def check(self, entry: FileEntry) -> Path:
        """The blob's path, after a check of kind, size and time; a changed time costs a full hash.

        Raises:
            StoreBroken: the blob is missing, not a file, or not what its name says.
        """
        path = self._paths.blob(entry.digest)
        try:
            require_inside(path, self._paths.blobs, self._disk)
            facts = self._disk.facts(path)
            if not _plausible(facts, entry):
                raise StoreBroken(f"The file {entry.digest} in the store is damaged.", fix=_PULL)
            if facts.st_mtime_ns != PUBLISHED_NS and not self._shared(entry.digest, facts):
                self._rehash(path, entry.digest, facts)
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
            path = self._paths.blob(value)
            require_inside(path, self._paths.blobs, self._disk)
            return self._disk.read(path, limit)
        except OSError as error:
            raise StoreBroken(f"The file {value} cannot be read.", fix=_PULL) from error

    def remove(self, value: Digest) -> None:
        """The blob is gone.

        Raises:
            OSError: the disk refused.
        """
        path = self._paths.blob(value)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            require_inside(path, self._paths.blobs, self._disk)
            self._disk.unlink(path)
        self._sharing.forget(value)

    def quarantine(self, value: Digest) -> None:
        """The blob is out of the way, so that names that need it show as broken, and kept.

        Raises:
            OSError: the disk refused.
        """
        path, away = self._paths.blob(value), self._paths.quarantined(value)
        require_inside(path, self._paths.blobs, self._disk)
        make_durable_directory(away.parent, self._disk, self._paths.root)
        self._disk.rename(path, away)
        self._disk.sync_directory(away.parent)
        self._disk.sync_directory(path.parent)
        self._sharing.forget(value)

    def _begin(self, value: Digest, size: ByteCount | None) -> Ingest:
        release = partial(self._writers.release, value)
        self._writers.claim(value)
        try:
            return Ingest(value, size, self._paths, self._disk, release)
        except BaseException:
            release()
            raise

    def _shared(self, value: Digest, facts: os.stat_result) -> bool:
        return self._sharing.unchanged(value, facts)

    def _rehash(self, path: Path, value: Digest, facts: os.stat_result) -> None:
        if hash_file(path, self._disk) != value:
            raise StoreBroken(f"The file {value} in the store was changed.", fix=_PULL)
        with contextlib.suppress(OSError):  # on a read-only disk it is hashed again next time
            if facts.st_nlink > 1:  # another program's file too: not ours to seal
                self._sharing.remember(value, facts)
            else:
                self._disk.seal(path)


_PULL = "Pull the model again to repair it."


def _plausible(facts: os.stat_result, entry: FileEntry) -> bool:
    return stat.S_ISREG(facts.st_mode) and facts.st_size == entry.size
