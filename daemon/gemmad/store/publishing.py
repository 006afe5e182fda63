"""The last steps of every blob: its synced file gets its name, and the name reaches the disk."""

import contextlib
from pathlib import Path

from gemmad.core import Digest
from gemmad.store.disk import Disk
from gemmad.store.inside import require_inside
from gemmad.store.paths import StorePaths


def publish(
    part: Path, digest: Digest, paths: StorePaths, disk: Disk, *, seal: bool = True
) -> None:
    """`part`, whose content was verified and synced, is the blob; nothing of it stays in ingest.

    It is sealed after it has its name: a kill in between costs one hash, whereas a sealed part file
    could not be opened for writing again. A file shared with another program is never sealed.

    Raises:
        OSError: the disk refused.
    """
    final = paths.blob(digest)
    make_durable_directory(final.parent, disk, paths.blobs)
    require_inside(final, paths.blobs, disk)
    disk.rename(part, final)
    if seal:
        disk.seal(final)
    disk.sync_directory(final.parent)
    disk.sync_directory(part.parent)
    for leftover in paths.ingested(digest):
        with contextlib.suppress(OSError):  # the blob stands; what it is made of harms nothing
            disk.unlink(leftover)


def make_durable_directory(path: Path, disk: Disk, within: Path) -> None:
    """The directory exists, and its name and those of its parents below `within` are on the disk.

    One that was there already is synced too: who made it may have died before that.

    Raises:
        OSError: the disk refused.
    """
    below = path.relative_to(within).parts
    for depth in range(len(below)):
        new = within.joinpath(*below[: depth + 1])
        disk.make_directory(new)
        disk.sync_directory(new.parent)


def write_all(fd: int, data: bytes | memoryview, disk: Disk) -> None:
    """All of `data` follows what was written before.

    Raises:
        OSError: the disk refused.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[disk.write(fd, rest) :]
