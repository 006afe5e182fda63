"""The one error and the one way of opening that every reader of untrusted files shares."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_OPEN = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_DO_NOT_WAIT = getattr(os, "O_NONBLOCK", 0)  # a FIFO without a writer would hang the open


class BadFile(ValueError):
    """A file is damaged, hostile or of a kind not read here; the text says why, without its name.

    It reads on from the file's name: `model.gguf: its header ends in the middle of a number`.
    """


def open_regular(path: Path) -> BinaryIO:
    """An unbuffered reader of a regular file; nothing else is opened, and no open waits.

    Raises:
        BadFile: it is a FIFO, a device or a directory.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, _OPEN | _DO_NOT_WAIT)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadFile("it is no regular file")
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a small file.

    Raises:
        BadFile: it is larger than `most` bytes, or no regular file.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise BadFile(f"it is {size} bytes; at most {most} are read of such a file")
        pieces = []
        while size > 0 and (piece := file.read(size)):
            pieces.append(piece)
            size -= len(piece)
    return b"".join(pieces)


def shown(text: str) -> str:
    """A name out of an untrusted file, as an error may quote it: short, one line, no controls."""
    return "".join(char if char.isprintable() else "?" for char in text[:80])
