"""Below a room of the store no directory is a link: one that somebody planted is not gone through.

The rooms themselves may be links: an owner moves blobs to a larger disk that way.
"""

import errno
import stat
from pathlib import Path

from gemmad.store.disk import Disk


def require_inside(path: Path, room: Path, disk: Disk) -> None:
    """Every directory between `room` and `path` is a directory of its own.

    Raises:
        NotADirectoryError: one is something else.
        FileNotFoundError: one is missing.
        OSError: the disk refused.
    """
    folder = room
    for part in path.relative_to(room).parts[:-1]:
        folder = folder / part
        if not stat.S_ISDIR(disk.facts(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "A directory of the store is a link", part)
