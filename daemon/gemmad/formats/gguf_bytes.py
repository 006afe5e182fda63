"""A bounded forward reader of little-endian values: no more is taken than is there and allowed."""

import os
import struct
import sys
from array import array
from typing import Any, BinaryIO, Protocol

from gemmad.formats.limits import BadFile

_WINDOW_BYTES = 256 << 10  # read at once; a string or number never needs the whole header
_LENGTH = struct.Struct("<Q")
_SHORT_LENGTH = struct.Struct("<I")


class Digest(Protocol):
    """A hash that is being computed."""

    def update(self, data: bytes, /) -> None: ...


class HeaderBytes:
    """The bytes of a header from its begin on; `spare` is what the limits still allow to read."""

    def __init__(self, file: BinaryIO, spare: int) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0  # in the file, of the next byte taken
        self._file = file
        self._end = min(self.size, spare)
        self._window = b""
        self._at = 0  # of the next byte, in the window

    @property
    def left(self) -> int:
        """How many bytes can still be taken."""
        return self._end - self.position

    def check(self, nbytes: int, what: str) -> None:
        """Holds afterwards: `nbytes` more can be taken.

        Raises:
            BadFile: the file is shorter, or its header is longer than any honest one.
        """
        if nbytes > self.left:
            why = "the file ends before" if self._end == self.size else "the header is too long for"
            raise BadFile(f"{why} {what}")

    def take(self, nbytes: int, what: str) -> bytes:
        """The next `nbytes` bytes.

        Raises:
            BadFile: as `check`.
        """
        self.check(nbytes, what)
        if len(self._window) - self._at < nbytes:
            self._fill(nbytes)
        piece = self._window[self._at : self._at + nbytes]
        self._at += nbytes
        self.position += nbytes
        return piece

    def unpack(self, form: struct.Struct, what: str) -> tuple[Any, ...]:
        """The next values of the form `form`.

        Raises:
            BadFile: as `check`.
        """
        return form.unpack(self.take(form.size, what))

    def string(self, most: int, what: str) -> str:
        """The next string: a length and UTF-8.

        Raises:
            BadFile: as `check`; it is longer than `most` bytes; it is not UTF-8.
        """
        (length,) = self.unpack(_LENGTH, what)
        if length > most:
            raise BadFile(f"{what} is {length} bytes long; at most {most} are read")
        return _decoded(self.take(length, what), what)

    def strings(
        self, count: int, most: int, what: str, *, keep: bool = True, digest: Digest | None = None
    ) -> list[str]:
        """The next `count` strings; none of them when they are not to be kept.

        `digest` is fed each string's length as u32 and its UTF-8.

        Raises:
            BadFile: as `string`.
        """
        self.check(count * _LENGTH.size, what)
        found: list[str] = []
        while count:
            some = self._strings_in_window(count, most, what) or [self.string(most, what)]
            count -= len(some)
            if digest is not None:
                _feed(digest, some)
            if keep:
                found += some
        return found

    def numbers(self, typecode: str, count: int, what: str, *, keep: bool = True) -> "array[Any]":
        """The next `count` numbers; none of them when they are not to be kept.

        Raises:
            BadFile: as `check`.
        """
        found = array(typecode)
        left = count * found.itemsize
        self.check(left, what)
        while left:
            piece = self.take(min(left, _WINDOW_BYTES), what)
            if keep:
                found.frombytes(piece)
            left -= len(piece)
        if sys.byteorder == "big":
            found.byteswap()
        return found

    def _strings_in_window(self, count: int, most: int, what: str) -> list[str]:
        """The next strings up to the first that does not end in the window; `count` at most.

        One loop without calls: a vocabulary and its merges are 800,000 strings.
        """
        found: list[str] = []
        window, at, end = self._window, self._at, len(self._window)
        length_of = _LENGTH.unpack_from
        try:
            while len(found) < count and at + 8 <= end:
                begin = at + 8
                stop = begin + length_of(window, at)[0]
                if stop > end or stop - begin > most:
                    break  # `string` reads on, or says what is wrong
                found.append(window[begin:stop].decode())
                at = stop
        except UnicodeDecodeError:
            raise BadFile(f"{what} is not UTF-8") from None
        self.position += at - self._at
        self._at = at
        return found

    def _fill(self, nbytes: int) -> None:
        """The window begins with the next byte and holds `nbytes` at least."""
        pieces = [self._window[self._at :]]
        have = len(pieces[0])
        wanted = min(max(nbytes, _WINDOW_BYTES), self.left)
        while have < wanted:
            piece = self._file.read(wanted - have)
            if not piece:
                raise BadFile("the file became shorter while it was read")
            pieces.append(piece)
            have += len(piece)
        self._window, self._at = b"".join(pieces), 0


def _feed(digest: Digest, texts: list[str]) -> None:
    for text in texts:
        data = text.encode()
        digest.update(_SHORT_LENGTH.pack(len(data)))
        digest.update(data)


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadFile(f"{what} is not UTF-8") from None
