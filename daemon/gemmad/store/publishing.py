"""The last steps of every blob: its synced file gets its name, and the name reaches the disk."""

import contextlib
from pathlib import Path

from gemmad.core import Digest
from gemmad.store.disk import Disk
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
    make_durable_directory(final.parent, disk)
    disk.rename(part, final)
    if seal:
        disk.seal(final)
    disk.sync_directory(final.parent)
    disk.sync_directory(part.parent)
    for leftover in paths.ingested(digest):
        with contextlib.suppress(OSError):  # the blob stands; what it is made of harms nothing
            disk.unlink(leftover)


def make_durable_directory(path: Path, disk: Disk) -> None:
    """The directory and its new parents exist, and their names have reached the disk.

    Raises:
        OSError: the disk refused.
    """
    missing: list[Path] = []
    while not _exists(path, disk):
        missing.append(path)
        path = path.parent
    for new in reversed(missing):
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


def _exists(path: Path, disk: Disk) -> bool:
    try:
        disk.facts(path)
    except FileNotFoundError:
        return False
    return True
