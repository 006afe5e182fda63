"""Where the bytes of a piece go: into the partial, or beside it to be compared with it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from gemmad.fetch.ports import Partial
from gemmad.fetch.trouble import Subject, disk_trouble
from gemmad.fetch.work import Piece


class Sink(Protocol):
    """Takes a piece's bytes in order; called by the piece's worker, for several pieces at once."""

    def put(self, piece: Piece, data: memoryview) -> None:
        """The bytes follow what is `done`, which is not moved here."""
        ...

    def keep(self, piece: Piece) -> None:
        """What is done must not be lost."""
        ...

    def end(self, piece: Piece) -> None:
        """The piece is done."""
        ...


class Keeping:
    """Into the partial."""

    def __init__(self, partial: Partial, subject: Subject) -> None:
        self._partial, self._subject = partial, subject

    def put(self, piece: Piece, data: memoryview) -> None:
        """They are written.

        Raises:
            GemmaError: the disk refused.
        """
        with self._disk_words():
            self._partial.write(piece.begin + piece.done, data)

    def keep(self, piece: Piece) -> None:
        """The journal has it.

        Raises:
            GemmaError: the disk refused.
        """
        if 0 < piece.done < piece.length:
            with self._disk_words():
                self._partial.keep(piece.chunk, piece.done, piece.crc)

    def end(self, piece: Piece) -> None:
        """The chunk is finished.

        Raises:
            GemmaError: the disk refused.
        """
        with self._disk_words():
            self._partial.finish(piece.chunk, piece.crc)

    @contextlib.contextmanager
    def _disk_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            done, size = self._partial.completed, self._partial.entry.size
            raise disk_trouble(self._subject, error, done, size) from error


class Comparing:
    """Beside the partial: a chunk whose second copy differs replaces the first.

    `_lock` is between workers: while one tries whether its copy was the remedy, the others wait
    with theirs, so that hardly more is read than is needed.
    """

    def __init__(self, keeping: Keeping, partial: Partial, remedied: Callable[[], bool]) -> None:
        """`remedied` says whether all is well now; it is asked after each replacement."""
        self.differed: set[int] = set()  # read once all workers are done
        self.settled = False  # nothing is replaced any more
        self._keeping, self._partial, self._remedied = keeping, partial, remedied
        self._lock = threading.Lock()
        self._copies: dict[int, bytearray] = {}

    def put(self, piece: Piece, data: memoryview) -> None:
        """They are held in memory: a piece is one chunk."""
        copy = self._copies.setdefault(piece.chunk, bytearray(piece.length))
        copy[piece.done : piece.done + len(data)] = data

    def keep(self, piece: Piece) -> None:
        """A comparison that is cut short is begun anew."""

    def end(self, piece: Piece) -> None:
        """The partial has the newer copy.

        Raises:
            GemmaError: the disk refused.
        """
        copy = self._copies.pop(piece.chunk)
        with self._lock:
            if self.settled or piece.crc == self._partial.crc(piece.chunk):
                return
            self._partial.reopen(piece.chunk)
            self._keeping.put(Piece(piece.chunk, piece.begin, piece.length), memoryview(copy))
            self._keeping.end(piece)
            self.differed.add(piece.chunk)
            self.settled = self._remedied()
