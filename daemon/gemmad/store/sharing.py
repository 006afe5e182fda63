"""Facts of blobs that are also another program's files, kept beside them and not in them.

    <root>/shared/<hex>.json    {"size": 4096, "mtime_ns": 1700000000000000000, "inode": 42}

A blob of our own carries the time of published files; a hard link shares its inode with a file that
is not ours to touch, so what it looked like when it was hashed is written here instead.
"""

import contextlib
import os

import msgspec

from gemmad.core import Digest
from gemmad.store.disk import Disk
from gemmad.store.paths import StorePaths
from gemmad.store.publishing import make_durable_directory, write_all

_MAX_BYTES = 4096


class SharedFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file looked like when its content was hashed."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, facts: os.stat_result) -> "SharedFacts":
        """The facts that matter."""
        return cls(facts.st_size, facts.st_mtime_ns, facts.st_ino)


class Sharing:
    """The facts of a store's shared blobs. Callers serialise writers of one digest."""

    def __init__(self, paths: StorePaths, disk: Disk) -> None:
        self._paths = paths
        self._disk = disk

    def unchanged(self, digest: Digest, facts: os.stat_result) -> bool:
        """Whether the blob looks as it did when it was hashed.

        Raises:
            OSError: what is known of it cannot be read.
        """
        try:
            data = self._disk.read(self._paths.shared(digest), _MAX_BYTES)
            return msgspec.json.decode(data, type=SharedFacts) == SharedFacts.of(facts)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError, UnicodeDecodeError):
            return False  # costs a hash

    def remember(self, digest: Digest, facts: os.stat_result) -> None:
        """The blob is known to look like this. Not synced: what is lost costs a hash.

        Raises:
            OSError: the disk refused.
        """
        path = self._paths.shared(digest)
        make_durable_directory(path.parent, self._disk, self._paths.root)
        fd = self._disk.open_new(path)
        try:
            write_all(fd, msgspec.json.encode(SharedFacts.of(facts)), self._disk)
        finally:
            self._disk.close(fd)

    def forget(self, digest: Digest) -> None:
        """Nothing is known of the blob, as far as the disk lets it."""
        with contextlib.suppress(OSError):
            self._disk.unlink(self._paths.shared(digest))
