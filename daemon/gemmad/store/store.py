"""The store as the rest of the daemon sees it: names that are whole, commit, copy and delete.

I1: a name under blobs/ implies that its content has that hash.
I2: a readable manifest implies that all its blobs are there.
I3: a name that was there before a crash is there after it.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gemmad.api.errors import ModelNotFound, StoreBroken
from gemmad.core import ByteCount, Digest, FileEntry, Manifest, ModelName
from gemmad.store.binding import Bindings
from gemmad.store.blobs import Blobs
from gemmad.store.disk import Disk
from gemmad.store.garbage import MIN_AGE_S, Collector, Garbage
from gemmad.store.hashing import Progress, hash_file, no_progress
from gemmad.store.ingest import Ingest
from gemmad.store.layout import open_layout
from gemmad.store.listing import Listing
from gemmad.store.manifests import Broken, Manifests, not_here
from gemmad.store.partial import CHUNK_BYTES, Partial
from gemmad.store.partials import PartialFacts, Partials
from gemmad.store.paths import StorePaths
from gemmad.store.verification import Verdict, Verification, VerifyProgress
from gemmad.store.writers import Writers
from gemmad.wire import PairFiles


class Store:
    """One store directory. Opening it creates its rooms and deletes nothing."""

    def __init__(
        self,
        root: Path,
        disk: Disk | None = None,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The store's directories exist, in today's layout.

        Raises:
            StoreBroken: a newer version wrote this store, or it does not say which.
            OSError: they could not be made.
        """
        self._disk = disk or Disk()
        self._clock = clock
        self._paths = StorePaths(root)
        open_layout(self._paths, self._disk)
        self._writers = Writers()
        self.blobs = Blobs(self._paths, self._disk, self._writers)
        self._partials = Partials(self._paths, self._disk, self._writers, chunk_bytes)
        self._manifests = Manifests(self._paths, self._disk)
        self._listing = Listing(self._paths, self._disk, self._manifests, self.blobs)
        self._bindings = Bindings(self._manifests)
        # Between commit, copy, delete and gc, which run in worker threads: a blob must not be
        # removed between a commit's check of it and its link.
        self._writer = threading.Lock()

    def get(self, name: ModelName) -> Manifest:
        """The manifest of `name`.

        Raises:
            ModelNotFound: there is no such name.
            StoreBroken: its manifest is damaged.
        """
        return self._manifests.read(name)

    def all(self) -> list[Manifest | Broken]:
        """Every name in the store; broken too when a blob it binds is missing or cut short."""
        return self._listing.all()

    @contextmanager
    def pin(self, digests: Collection[Digest]) -> Iterator[None]:
        """Inside, no delete removes these blobs although no manifest names them yet."""
        with self._writer:
            self._bindings.pins.append(digests)
        try:
            yield
        finally:
            with self._writer:
                self._bindings.pins.remove(digests)

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
            changed = msgspec.structs.replace(
                manifest,
                name=str(destination),
                created=now_text(),
                reference=manifest.reference or manifest.name,
            )
            self._manifests.link(changed)

    def delete(self, name: ModelName) -> None:
        """The name is gone, then the blobs that nothing else names.

        Raises:
            ModelNotFound: there is no such name.
            OSError: the disk refused; blobs may stay, no name is harmed.
        """
        with self._writer:
            try:
                candidates = self._digests(name)
            except ModelNotFound as error:
                raise not_here(name) from error
            self._manifests.unlink(name)
            for digest in candidates - self._bindings.needed(candidates):
                self.blobs.remove(digest)

    def pair_files(self, manifest: Manifest) -> PairFiles:
        """Where the pair's files are, each checked (kind, size, time; hashed if the time changed).

        Raises:
            StoreBroken: a blob is missing or damaged.
        """
        return PairFiles(
            target=self._located(manifest.target),
            drafter=self._located_if_any(manifest.drafter),
            projector=self._located_if_any(manifest.projector),
            adapter=self._located_if_any(manifest.adapter),
        )

    def text(self, entry: FileEntry | None) -> str:
        """The text of a small file; empty when there is none.

        Raises:
            StoreBroken: it cannot be read.
        """
        return self.blobs.read(entry.digest).decode(errors="replace") if entry else ""

    def missing(self, entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
        """Those of `entries` that are not here or do not pass the load-time check, each once."""
        return tuple(entry for entry in dict.fromkeys(entries) if not self.blobs.has(entry))

    def partial(self, entry: FileEntry) -> Partial:
        """The partial of that blob, begun or resumed; its caller closes, commits or discards it.

        Raises:
            Busy: the blob is being written.
            OSError: the disk refused.
        """
        return self._partials.open(entry)

    def partials(self) -> list[PartialFacts]:
        """Every download that is not finished.

        Raises:
            OSError: the disk refused.
        """
        return self._partials.all()

    def remove_partials(self) -> ByteCount:
        """No unfinished download is left but those being written; returns the bytes freed.

        Raises:
            OSError: the disk refused; some may be left.
        """
        return self._partials.remove()

    def receive(self, digest: Digest) -> Ingest:
        """A new ingest of a blob whose size is not known ahead.

        Raises:
            BadRequest: not a digest.
            Busy: the blob is being written.
            OSError: the disk refused.
        """
        return self.blobs.receive(digest)

    def adopt(
        self, entry: FileEntry, path: Path, progress: Progress = no_progress, *, link: bool = True
    ) -> bool:
        """The blob `entry` exists, taken from the file at `path`; False when that is another file.

        No bytes are moved where the disk can share them. `link=False` when the file may be changed
        in place: then the blob is a reflink or a copy.

        Raises:
            Busy: the blob is being written.
            OSError: the store's own disk refused.
        """
        return self.blobs.adopt(entry, path, progress, link=link)

    def free(self) -> ByteCount:
        """Bytes that may still be written to the store's file system.

        Raises:
            OSError: it does not say.
        """
        return ByteCount(self._disk.free(self._paths.root))

    def digest_of(self, path: Path, progress: Progress = no_progress) -> Digest:
        """The digest of any regular file; a link is not followed.

        Raises:
            OSError: it cannot be read.
        """
        return hash_file(path, self._disk, progress)

    def gc(self, dry_run: bool, min_age_s: float = MIN_AGE_S) -> Garbage:
        """No blob is left that no name binds, no pin holds, and that is older than that.

        Raises:
            StoreBroken: a manifest is damaged, so what it binds is unknown; nothing was removed.
            OSError: the disk refused; some may be left.
        """
        with self._writer:
            needed = self._bindings.all()
            collector = Collector(self._paths, self._disk, self.blobs, dry_run=dry_run)
            return collector.collect(needed, self._clock() - min_age_s)

    def verify(
        self, name: ModelName | None = None, progress: VerifyProgress = lambda *_: None
    ) -> Iterator[Verdict]:
        """One verdict for every file of that name or of all; damaged blobs are set aside.

        A name that needs one shows as broken from then on, and a pull of it fetches only that.

        Raises:
            ModelNotFound: there is no such name.
            OSError: a damaged blob could not be moved.
        """
        names = self._manifests.all() if name is None else [self._one(name)]
        verification = Verification(self._paths, self._disk, self.blobs, self._writers, progress)
        return verification.verdicts(names)

    def _one(self, name: ModelName) -> Manifest | Broken:
        try:
            return self._manifests.read(name)
        except StoreBroken as error:
            return Broken(name, str(error))

    def _located_if_any(self, files: dict[str, FileEntry] | None) -> dict[str, str] | None:
        return None if files is None else self._located(files)

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


def now_text() -> str:
    """This moment as RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
