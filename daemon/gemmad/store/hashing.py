"""The hash of a file on the disk, read piece by piece."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from gemmad.core import Digest
from gemmad.store.disk import Disk

_READ_BYTES = 1 << 20

Progress = Callable[[int], None]  # bytes so far


def no_progress(_: int) -> None:
    """Nobody watches."""


def hash_open(fd: int, disk: Disk, progress: Progress = no_progress) -> Digest:
    """The digest of the open file.

    Raises:
        OSError: it cannot be read.
    """
    actual, done = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_READ_BYTES))
    while count := disk.read_at(fd, buffer, done):
        actual.update(buffer[:count])
        done += count
        progress(done)
    return Digest(f"sha256:{actual.hexdigest()}")


def hash_file(
    path: Path, disk: Disk, progress: Progress = no_progress, *, from_disk: bool = False
) -> Digest:
    """The digest of the regular file at `path`; `from_disk`: not of what memory still holds of it.

    Raises:
        OSError: it cannot be read.
    """
    fd = disk.open_existing(path)
    try:
        if from_disk:
            disk.uncache(fd)
        return hash_open(fd, disk, progress)
    finally:
        disk.close(fd)
