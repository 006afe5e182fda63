"""Memory for weights: in huge pages where the system has them, which are read faster by half."""

import ctypes
import mmap
import threading
from typing import NamedTuple

_CHUNK = 256 << 20
_HUGE = 2 << 20
_LINE = 64


class Region(NamedTuple):
    """Bytes at an address that are there as long as `owner` is."""

    address: int
    owner: mmap.mmap


class Arena(threading.local):
    """Hands out parts of large mappings, so that a small matrix does not take a page of 2 MiB."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """What is taken from here on shares no mapping with what was: it can be freed alone."""
        self._chunk: Region | None = None
        self._left = 0

    def take(self, nbytes: int) -> Region:
        """`nbytes` of zeros at a multiple of 64; they are free when nobody holds their owner.

        Raises:
            OSError: the system has no such memory.
        """
        nbytes = -(-nbytes // _LINE) * _LINE
        if self._chunk is None or nbytes > self._left:
            self._chunk, self._left = _mapped(max(nbytes, _CHUNK)), max(nbytes, _CHUNK)
        taken = self._chunk
        self._chunk = Region(taken.address + nbytes, taken.owner)
        self._left -= nbytes
        return taken


def _mapped(nbytes: int) -> Region:
    """Pages that take no memory before they are written."""
    # Shared pages, Python's own choice, are never huge.
    private = (
        {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    )
    owner = mmap.mmap(-1, nbytes + _HUGE, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        owner.madvise(mmap.MADV_HUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(owner))
    return Region(-(-start // _HUGE) * _HUGE, owner)
