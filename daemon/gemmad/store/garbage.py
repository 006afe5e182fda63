"""Blobs that nothing needs: found by what the manifests name, and removed when asked."""

from dataclasses import dataclass
from pathlib import Path

from gemmad.core import ByteCount, Digest
from gemmad.store.blobs import Blobs
from gemmad.store.disk import Disk
from gemmad.store.paths import StorePaths

MIN_AGE_S = 24 * 3600.0  # a pull links its name within a day of its first blob


@dataclass(frozen=True, slots=True)
class Garbage:
    """What a collection removed, or would remove."""

    blobs: tuple[tuple[Digest, ByteCount], ...]
    bytes: ByteCount
    kept_recent: int  # blobs that nothing names but that are younger than the least age


class Collector:
    """One collection. The caller keeps commits and deletes out meanwhile."""

    def __init__(self, paths: StorePaths, disk: Disk, blobs: Blobs, *, dry_run: bool) -> None:
        self._paths = paths
        self._disk = disk
        self._blobs = blobs
        self._dry_run = dry_run
        self._found: list[tuple[Digest, ByteCount]] = []
        self._recent = 0

    def collect(self, needed: frozenset[Digest], older_than_s: float) -> Garbage:
        """No blob outside `needed` is left that got its name before that moment, none quarantined.

        Raises:
            OSError: the disk refused; some may be left.
        """
        for path in list(self._disk.walk(self._paths.blobs)):
            digest = self._paths.digest_of_blob(path)
            if digest is not None and digest not in needed:
                self._sweep(digest, path, older_than_s)
        for name in self._disk.names(self._paths.quarantine):
            if (digest := self._paths.digest_in_quarantine(name)) is not None:
                self._sweep(digest, self._paths.quarantined(digest), older_than_s)
        total = sum(size for _, size in self._found)
        return Garbage(tuple(self._found), ByteCount(total), self._recent)

    def _sweep(self, digest: Digest, path: Path, older_than_s: float) -> None:
        try:
            facts = self._disk.facts(path)
        except FileNotFoundError:
            return
        # A blob's mtime is the same for all; its ctime is when it got its name or was sealed.
        if facts.st_ctime > older_than_s:
            self._recent += 1
            return
        if not self._dry_run:
            self._remove(digest, path)
        self._found.append((digest, ByteCount(facts.st_size)))

    def _remove(self, digest: Digest, path: Path) -> None:
        if path == self._paths.blob(digest):
            self._blobs.remove(digest)
        else:
            self._disk.unlink(path)
