"""The store as the rest of the daemon sees it: names that are whole, commit, copy and delete.

I1: a name under blobs/ implies that its content has that hash.
I2: a readable manifest implies that all its blobs are there.
"""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gemmad.api.errors import StoreBroken
from gemmad.core import Digest, FileEntry, Manifest, ModelName
from gemmad.store.blobs import Blobs
from gemmad.store.disk import Disk
from gemmad.store.manifests import Broken, Manifests
from gemmad.store.paths import StorePaths
from gemmad.wire import PairFiles


class Store:
    """One store directory. Opening it creates its rooms and deletes nothing."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        """The store's directories exist.

        Raises:
            OSError: they could not be made.
        """
        self._disk = disk or Disk()
        self._paths = StorePaths(root)
        for directory in (self._paths.ingest, self._paths.blobs, self._paths.manifests):
            self._disk.make_directory(directory)
        self.blobs = Blobs(self._paths, self._disk)
        self._manifests = Manifests(self._paths, self._disk)
        self._pinned: list[Collection[Digest]] = []
        # Between commit, copy and delete, which run in worker threads: a delete must not remove
        # a blob between a commit's check of it and its link.
        self._writer = threading.Lock()

    def get(self, name: ModelName) -> Manifest:
        """The manifest of `name`.

        Raises:
            ModelNotFound: there is no such name.
            StoreBroken: its manifest is damaged.
        """
        return self._manifests.read(name)

    def all(self) -> list[Manifest | Broken]:
        """Every name in the store, sound or broken."""
        return list(self._manifests.all())

    @contextmanager
    def pin(self, digests: Collection[Digest]) -> Iterator[None]:
        """Inside, no delete removes these blobs although no manifest names them yet."""
        with self._writer:
            self._pinned.append(digests)
        try:
            yield
        finally:
            with self._writer:
                self._pinned.remove(digests)

    def commit(self, manifest: Manifest) -> None:
        """The name exists and everything it binds is there.

        Raises:
            StoreBroken: a blob is missing or damaged; the name is as it was before.
            OSError: the disk refused; the name is as it was before.
        """
        with self._writer:
            self._check_blobs(manifest)
            self._manifests.link(manifest)

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """`destination` is the pair that `source` is; they share every blob.

        Raises:
            ModelNotFound: there is no `source`.
            StoreBroken: `source` is damaged.
            OSError: the disk refused.
        """
        with self._writer:
            manifest = self._manifests.read(source)
            self._check_blobs(manifest)
            changed = msgspec.structs.replace(manifest, name=str(destination), created=now_text())
            self._manifests.link(changed)

    def delete(self, name: ModelName) -> None:
        """The name is gone, then the blobs that nothing else names.

        Raises:
            ModelNotFound: there is no such name.
            OSError: the disk refused; blobs may stay, no name is harmed.
        """
        with self._writer:
            candidates = self._digests(name)
            self._manifests.unlink(name)
            for digest in candidates - self._needed(candidates):
                self.blobs.remove(digest)

    def pair_files(self, manifest: Manifest) -> PairFiles:
        """Where the pair's files are, each checked (kind, size, time; hashed if the time changed).

        Raises:
            StoreBroken: a blob is missing or damaged.
        """
        drafter = manifest.drafter
        return PairFiles(
            target=self._located(manifest.target),
            drafter=None if drafter is None else self._located(drafter),
        )

    def text(self, entry: FileEntry | None) -> str:
        """The text of a small file; empty when there is none.

        Raises:
            StoreBroken: it cannot be read.
        """
        return self.blobs.read(entry.digest).decode(errors="replace") if entry else ""

    def _located(self, files: dict[str, FileEntry]) -> dict[str, str]:
        return {name: str(self.blobs.check(entry)) for name, entry in files.items()}

    def _check_blobs(self, manifest: Manifest) -> None:
        for entry in manifest.files:
            self.blobs.check(entry)

    def _digests(self, name: ModelName) -> frozenset[Digest]:
        try:
            return self._manifests.read(name).digests
        except StoreBroken:
            return frozenset()  # what it bound is not known, so nothing of it is removed

    def _needed(self, candidates: frozenset[Digest]) -> frozenset[Digest]:
        pinned = frozenset[Digest]().union(*self._pinned)
        named: set[Digest] = set()
        for entry in self._manifests.all():
            if isinstance(entry, Broken):
                return candidates  # it may bind any blob: removing one could make it unrepairable
            named |= entry.digests
        return pinned | named


def now_text() -> str:
    """This moment as RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
