"""The partials of a store: opened one writer a digest, listed, and removed when asked."""

import contextlib
from dataclasses import dataclass
from functools import partial

from gemmad.api.errors import Busy
from gemmad.core import ByteCount, Digest, FileEntry
from gemmad.store.disk import Disk
from gemmad.store.journal import MAX_JOURNAL_BYTES, read_header, read_records
from gemmad.store.partial import Partial
from gemmad.store.paths import StorePaths
from gemmad.store.writers import Writers


@dataclass(frozen=True, slots=True)
class PartialFacts:
    """An unfinished download; `completed` is what its journal says, not yet checked."""

    digest: Digest
    size: ByteCount
    completed: ByteCount
    modified_s: float  # seconds since the epoch


class Partials:
    """What lies in a store's ingest room."""

    def __init__(self, paths: StorePaths, disk: Disk, writers: Writers, chunk_bytes: int) -> None:
        self._paths = paths
        self._disk = disk
        self._writers = writers
        self._chunk_bytes = chunk_bytes

    def open(self, entry: FileEntry) -> Partial:
        """The partial of `entry`, begun or resumed.

        Raises:
            Busy: it is being written.
            OSError: the disk refused.
        """
        release = partial(self._writers.release, entry.digest)
        self._writers.claim(entry.digest)
        try:
            return Partial(
                entry, self._paths, self._disk, chunk_bytes=self._chunk_bytes, released=release
            )
        except BaseException:
            release()
            raise

    def all(self) -> list[PartialFacts]:
        """Every partial, those being written too.

        Raises:
            OSError: the disk refused.
        """
        found = []
        for digest in self._digests():
            with contextlib.suppress(FileNotFoundError):  # committed while we looked
                found.append(self._facts(digest))
        return found

    def remove(self) -> ByteCount:
        """No partial is left but those being written; returns the bytes that were freed.

        Raises:
            OSError: the disk refused; some may be left.
        """
        freed = 0
        for digest in self._digests():
            with contextlib.suppress(Busy), self._writers.claimed(digest):
                freed += self._remove(digest)
        return ByteCount(freed)

    def _digests(self) -> list[Digest]:
        names = self._disk.names(self._paths.ingest)
        found = {digest for name in names if (digest := self._paths.digest_in_ingest(name))}
        return sorted(found)

    def _facts(self, digest: Digest) -> PartialFacts:
        part = self._disk.facts(self._paths.part(digest))
        data = self._disk.read(self._paths.journal(digest), MAX_JOURNAL_BYTES)
        header = read_header(data)
        written = read_records(data, header).values() if header else ()
        return PartialFacts(
            digest,
            ByteCount(header.size if header else part.st_size),
            ByteCount(sum(known.nbytes for known in written)),
            part.st_mtime,
        )

    def _remove(self, digest: Digest) -> int:
        freed = 0
        for path in self._paths.ingested(digest):
            with contextlib.suppress(FileNotFoundError):
                facts = self._disk.facts(path)
                self._disk.unlink(path)
                # A partial has holes: what it takes is less than its size. Windows does not say.
                freed += getattr(facts, "st_blocks", -(-facts.st_size // 512)) * 512
        return freed
