"""What this process has of the system's memory for itself; standard library only."""

import ctypes
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


class _MallInfo2(ctypes.Structure):
    """glibc's own figures, since 2.33."""

    _fields_ = [
        (name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")
    ]
    _fields_ += [
        (name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "in_use", "free", "top")
    ]


_mapped = 0  # bytes of weights in mappings of our own, which the C library does not count


def count_mapped(nbytes: int) -> None:
    """So many bytes more, or fewer, are in use in mappings of our own."""
    global _mapped
    _mapped += nbytes


def allocated_host_bytes() -> int | None:
    """What is allocated now, to the byte, whether it was ever written; None: nobody counts."""
    count = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if count is None:
        return None
    count.restype = _MallInfo2
    found = count()
    return int(found.in_use) + int(found.hblkhd) + _mapped


def own_host_bytes() -> int | None:
    """Anonymous memory, once freed memory was given back; None: this system does not say.

    Pages of mapped files are left out: the system drops them when it needs them.
    """
    if not _STATUS.exists():
        return None
    _give_back()
    for line in _STATUS.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "RssAnon":
            return int(rest.split()[0]) << 10
    return None


def _give_back() -> None:
    """glibc keeps freed memory for the next allocation; the system then counts it as taken."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps less
        if trim is not None:
            trim(0)
