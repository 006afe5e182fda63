"""Which layout a store directory has, and how an older one becomes today's.

    <root>/FORMAT    a number and a newline

    1  no FORMAT file; ingest, blobs and manifests
    2  shared and quarantine beside them, journals in ingest

A migration adds and never deletes, may be killed anywhere and is then run again; the number is
written last. An old version does not read FORMAT, and finds its rooms as it left them.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from gemmad.api.errors import StoreBroken
from gemmad.store.disk import Disk
from gemmad.store.paths import StorePaths
from gemmad.store.publishing import make_durable_directory, write_all

FORMAT = 2
_MAX_BYTES = 64


def open_layout(paths: StorePaths, disk: Disk) -> None:
    """The store directory exists and has today's layout.

    Raises:
        StoreBroken: a newer version wrote it, or its number cannot be read.
        OSError: the disk refused.
    """
    # The root's own name too: its parents may be new.
    make_durable_directory(paths.root, disk, _first_there(paths.root, disk))
    found = read_format(paths, disk)
    if found > FORMAT:
        raise StoreBroken(
            f"The store has format {found}; this version reads up to {FORMAT}.",
            fix="Update gemma-home, or start it with another store directory.",
        )
    for step in range(found, FORMAT):
        _MIGRATIONS[step](paths, disk)
    if found < FORMAT:
        _write_format(paths, disk)
    for room in (*_first_rooms(paths), *_second_rooms(paths)):
        make_durable_directory(room, disk, paths.root)


def read_format(paths: StorePaths, disk: Disk) -> int:
    """The format of the store; 1 when nothing says otherwise.

    Raises:
        StoreBroken: the file is there and holds no number.
        OSError: it cannot be read.
    """
    try:
        text = disk.read(paths.format, _MAX_BYTES)
    except FileNotFoundError:
        return 1
    if not text.strip().isdigit():
        raise StoreBroken(
            "The file FORMAT of the store is damaged.",
            fix=f"Write the number of its format into it; this version's is {FORMAT}.",
        )
    return int(text)


def _add_rooms(paths: StorePaths, disk: Disk) -> None:
    for room in _second_rooms(paths):
        make_durable_directory(room, disk, paths.root)


def _write_format(paths: StorePaths, disk: Disk) -> None:
    fd = disk.open_new(paths.format_part)
    try:
        write_all(fd, f"{FORMAT}\n".encode(), disk)
        disk.sync(fd)
    finally:
        disk.close(fd)
    disk.rename(paths.format_part, paths.format)
    disk.sync_directory(paths.root)


def _first_there(path: Path, disk: Disk) -> Path:
    """The nearest of the path's parents that exists."""
    for parent in path.parents:
        with contextlib.suppress(FileNotFoundError):
            disk.facts(parent)
            return parent
    return path.parent


def _first_rooms(paths: StorePaths) -> tuple[Path, ...]:
    return paths.ingest, paths.blobs, paths.manifests


def _second_rooms(paths: StorePaths) -> tuple[Path, ...]:
    return paths.shared_facts, paths.quarantine


# What turns format N into N + 1.
_MIGRATIONS: dict[int, Callable[[StorePaths, Disk], None]] = {1: _add_rooms}
