"""Every blob that names need is read from the disk and hashed; a bad one is put into quarantine."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gemmad.api.errors import Busy
from gemmad.core import ByteCount, Digest, FileEntry, Manifest, ModelName
from gemmad.store.blobs import Blobs
from gemmad.store.disk import Disk
from gemmad.store.hashing import hash_file
from gemmad.store.inside import require_inside
from gemmad.store.manifests import Broken
from gemmad.store.paths import StorePaths
from gemmad.store.writers import Writers

VerifyProgress = Callable[[ByteCount, ByteCount], None]  # bytes so far, of


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one file of one name; of a manifest that cannot be read, without a digest."""

    name: ModelName
    file: str
    digest: Digest | None
    ok: bool
    why: str | None = None
    kind: str | None = None  # which of the manifest's groups the file is in


class Verification:
    """One pass over some names; a blob that serves several is read once."""

    def __init__(
        self,
        paths: StorePaths,
        disk: Disk,
        blobs: Blobs,
        writers: Writers,
        progress: VerifyProgress,
    ) -> None:
        self._paths, self._disk, self._blobs, self._writers = paths, disk, blobs, writers
        self._progress = progress
        self._known: dict[Digest, str | None] = {}  # why each blob that was read is bad
        self._done, self._total = 0, 0

    def verdicts(self, names: Iterable[Manifest | Broken]) -> Iterator[Verdict]:
        """One verdict a file of every name; bad blobs are in quarantine.

        Raises:
            OSError: a bad blob could not be moved.
        """
        found = list(names)
        sound = [manifest for manifest in found if isinstance(manifest, Manifest)]
        sizes = {entry.digest: entry.size for manifest in sound for entry in manifest.files}
        self._total = sum(sizes.values())
        for manifest in found:
            if isinstance(manifest, Broken):
                yield Verdict(manifest.name, "manifest", None, ok=False, why=manifest.reason)
            else:
                yield from self._of(manifest)

    def _of(self, manifest: Manifest) -> Iterator[Verdict]:
        name = ModelName.parse(manifest.name)
        for kind, group in manifest.groups.items():
            for file, entry in group.items():
                if entry.digest not in self._known:
                    self._known[entry.digest] = self._look(entry)
                why = self._known[entry.digest]
                yield Verdict(name, file, entry.digest, ok=why is None, why=why, kind=kind)

    def _look(self, entry: FileEntry) -> str | None:
        """Why the blob is bad; a damaged one is no longer among the blobs."""
        begun = self._done
        why = self._damage(entry)
        self._done = begun + entry.size
        self._tell(0)
        return why

    def _damage(self, entry: FileEntry) -> str | None:
        path = self._paths.blob(entry.digest)
        try:
            require_inside(path, self._paths.blobs, self._disk)
            facts = self._disk.facts(path)
        except (FileNotFoundError, NotADirectoryError):
            return "is not in the store"
        try:
            why = self._difference(entry, facts)
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}"
            if error.errno != errno.EIO:
                return why  # not the blob's fault, e.g. too many open files: it stays
        if why is not None:
            self._set_aside(entry.digest, facts)
        return why

    def _difference(self, entry: FileEntry, facts: os.stat_result) -> str | None:
        if not stat.S_ISREG(facts.st_mode):
            return "is not a regular file"
        if facts.st_size != entry.size:
            return f"has {facts.st_size} bytes instead of {entry.size}"
        actual = self._hash(entry)
        return None if actual == entry.digest else f"has the content of {actual}"

    def _hash(self, entry: FileEntry) -> Digest:
        path = self._paths.blob(entry.digest)
        try:
            return hash_file(path, self._disk, self._tell, from_disk=True)
        except OSError:  # once may be a loose cable
            return hash_file(path, self._disk, self._tell, from_disk=True)

    def _set_aside(self, digest: Digest, looked_at: os.stat_result) -> None:
        # A pull that writes this blob right now repairs it; its new file must stay.
        with contextlib.suppress(Busy, FileNotFoundError), self._writers.claimed(digest):
            now = self._disk.facts(self._paths.blob(digest))
            if os.path.samestat(now, looked_at):
                self._blobs.quarantine(digest)

    def _tell(self, done_of_file: int) -> None:
        self._progress(ByteCount(self._done + done_of_file), ByteCount(self._total))
