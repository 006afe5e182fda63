"""Has a mapped file's pages read into memory ahead of whoever walks them.

A walk over a mapping waits for the disk at each page, a few pages at a time. The system is asked
for the next pieces meanwhile; it reads them without a copy and skips what it has. (Threads that
read into a buffer instead were slower than the plain walk: their copies took its cores.)
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from gemmarunner.models.header import Place

PIECE_BYTES = 1 << 20  # more at once, Linux cuts off at the size of its disk requests
AHEAD_BYTES = 256 << 20  # beyond what was walked: on a small machine more would push out the next


class PageReader:
    """Asks for `places` in order in the background; close it, or use it in a `with`."""

    def __init__(self, places: Sequence[Place], ahead_bytes: int = AHEAD_BYTES) -> None:
        self._ahead_bytes = ahead_bytes
        # Guards all below: the asking thread and the walker.
        self._changed = threading.Condition()
        self._ahead = 0  # bytes claimed and not walked
        self._is_closed = False
        self._pieces = _pieces(places)
        self._files: dict[Path, int] = {}
        self._thread: threading.Thread | None = None
        if hasattr(os, "posix_fadvise"):
            self._files = {path: os.open(path, os.O_RDONLY) for path in {p.path for p in places}}
            self._thread = threading.Thread(target=self._work, name="page-reader", daemon=True)
            self._thread.start()

    def __enter__(self) -> "PageReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def walked(self, nbytes: int) -> None:
        """The walker has come `nbytes` further."""
        with self._changed:
            self._ahead -= nbytes
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more is asked for and no file is open."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        while self._files:
            os.close(self._files.popitem()[1])

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # the walker will meet it, and can tell somebody
            while (piece := self._claim()) is not None:
                path, begin, nbytes = piece
                os.posix_fadvise(self._files[path], begin, nbytes, os.POSIX_FADV_WILLNEED)

    def _claim(self) -> tuple[Path, int, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._ahead < self._ahead_bytes)
            piece = None if self._is_closed else next(self._pieces, None)
            if piece is not None:
                self._ahead += piece[2]
            return piece


def _pieces(places: Sequence[Place]) -> Iterator[tuple[Path, int, int]]:
    """File, first byte and length of one piece after the other."""
    for place in places:
        for begin in range(0, place.nbytes, PIECE_BYTES):
            yield place.path, place.begin + begin, min(PIECE_BYTES, place.nbytes - begin)
