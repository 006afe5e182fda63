"""Where the daemon's own words go: stderr, and a file that never grows without end."""

import logging
import logging.handlers
import os
import stat
import sys
import time
from pathlib import Path
from typing import TextIO

_BYTES = 4 << 20
_KEPT = 3
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def start_logging(directory: Path, level: str) -> None:
    """Messages of `level` and above go to stderr and `<directory>/gemmad.log`.

    Raises:
        OSError: the directory or file cannot be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(
        directory / "gemmad.log", maxBytes=_BYTES, backupCount=_KEPT, encoding="utf-8"
    )
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handlers = (logging.StreamHandler(sys.stderr), file)
    root = logging.getLogger()
    for old in root.handlers[:]:  # a second daemon in one process (tests) starts afresh
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(level.upper())


def leave_plain_file() -> None:
    """Stderr gets no more words if it is a plain file: nobody keeps that one from growing."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler and _is_plain_file(handler.stream):
            root.info("the rest is in gemmad.log only")
            root.removeHandler(handler)


def _is_plain_file(stream: TextIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # closed, or no file at all
        return False
