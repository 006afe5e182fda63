"""A file that another program keeps becomes a blob, moving no bytes where the disk can share them.

1. reflink: the blob shares the file's blocks until one of the two is changed; it is ours alone.
2. hard link: the blob is the other program's file; nothing about it is changed, see sharing.py.
3. copy.

The way is chosen first, then the content is hashed once, through the descriptor that was opened.
"""

import contextlib
import os
from pathlib import Path

from gemmad.api.errors import PullFailed
from gemmad.core import FileEntry
from gemmad.store.disk import Disk
from gemmad.store.hashing import Progress, hash_open
from gemmad.store.ingest import Ingest
from gemmad.store.paths import StorePaths
from gemmad.store.publishing import publish
from gemmad.store.sharing import SharedFacts, Sharing

_COPY_BYTES = 4 << 20


class _UnreadableError(Exception):
    """The other program's file cannot be read; never seen outside this module."""


class Adoption:
    """Takes one file into the store. The caller holds the claim on its digest."""

    def __init__(
        self, entry: FileEntry, paths: StorePaths, disk: Disk, sharing: Sharing, progress: Progress
    ) -> None:
        self._entry = entry
        self._paths, self._disk, self._sharing = paths, disk, sharing
        self._new = paths.new(entry.digest)
        self._progress = progress

    def take(self, path: Path, *, link: bool) -> bool:
        """The blob exists; False when `path` is another file or cannot be read.

        Raises:
            OSError: the store's own disk refused.
        """
        try:
            source = self._disk.open_existing(path)
        except OSError:
            return False
        try:
            facts = self._disk.open_facts(source)
            if facts.st_size != self._entry.size:
                return False
            return self._take(source, path, facts, link=link)
        except _UnreadableError:
            return False
        finally:
            self._disk.close(source)

    def _take(self, source: int, path: Path, facts: os.stat_result, *, link: bool) -> bool:
        if (cloned := self._clone(source)) is not None:
            return self._publish_clone(cloned)
        if link and self._link(path, facts):
            return self._publish_link(source, facts)
        return self._copy(source)

    def _clone(self, source: int) -> int | None:
        fd = self._disk.open_new(self._new)
        try:
            self._disk.clone(source, fd)
        except OSError:  # another file system, or one without reflinks
            self._disk.close(fd)
            self._drop()
            return None
        return fd

    def _publish_clone(self, fd: int) -> bool:
        try:
            good = hash_open(fd, self._disk, self._progress) == self._entry.digest
            if good:
                self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        if good:
            publish(self._new, self._entry.digest, self._paths, self._disk)
        else:
            self._drop()
        return good

    def _link(self, path: Path, facts: os.stat_result) -> bool:
        try:
            self._disk.link(path, self._new)
        except OSError:  # another file system, one without links, or a file of another user
            return False
        linked = self._disk.facts(self._new)
        if (linked.st_dev, linked.st_ino) == (facts.st_dev, facts.st_ino):
            return True
        self._drop()  # the name was given to another file since we opened it
        return False

    def _publish_link(self, source: int, facts: os.stat_result) -> bool:
        try:
            good = self._hash(source) and self._unchanged(source, facts)
        except _UnreadableError:
            self._drop()
            raise
        if good:
            self._disk.sync(source)
            self._sharing.remember(self._entry.digest, facts)
            publish(self._new, self._entry.digest, self._paths, self._disk, seal=False)
        else:
            self._drop()
        return good

    def _hash(self, source: int) -> bool:
        try:
            return hash_open(source, self._disk, self._progress) == self._entry.digest
        except OSError as error:
            raise _UnreadableError from error

    def _unchanged(self, source: int, facts: os.stat_result) -> bool:
        return SharedFacts.of(self._disk.open_facts(source)) == SharedFacts.of(facts)

    def _copy(self, source: int) -> bool:
        ingest = Ingest(self._entry.digest, self._entry.size, self._paths, self._disk)
        try:
            self._pump(source, ingest)
            ingest.commit()
        except PullFailed:
            ingest.abort()
            return False
        except (OSError, _UnreadableError):
            ingest.abort()
            raise
        return True

    def _pump(self, source: int, ingest: Ingest) -> None:
        buffer, done = memoryview(bytearray(_COPY_BYTES)), 0
        while count := self._read(source, buffer, done):
            ingest.write(buffer[:count])
            done += count
            self._progress(done)

    def _read(self, source: int, buffer: memoryview, offset: int) -> int:
        try:
            return self._disk.read_at(source, buffer, offset)
        except OSError as error:
            raise _UnreadableError from error

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            self._disk.unlink(self._new)
