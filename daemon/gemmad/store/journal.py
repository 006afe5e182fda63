"""The journal of a partial: which of its chunks are written, each with a checksum.

    <hex>.journal, little-endian
    header, 24 bytes:  "GEMCHNK1" | size of the file u64 | chunk_bytes u32 | check u32
    record, 16 bytes:  chunk u32  | nbytes u32           | crc u32         | check u32

`check` is the CRC-32 of what stands before it in its header or record. A record says that the first
`nbytes` bytes of `chunk` are written and have the CRC-32 `crc`; 0 says that the chunk is missing
again. The last record of a chunk counts. A record that fails its check (cut off by a kill, or never
reached the disk) is passed over. Nothing here is synced: a reader checks each chunk's bytes.
"""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from gemmad.api.errors import Busy
from gemmad.store.disk import Disk

MAX_JOURNAL_BYTES = 64 << 20
_MAGIC = b"GEMCHNK1"
_HEADER = struct.Struct("<8sQII")
_RECORD = struct.Struct("<IIII")
_CHECK_BYTES = 4


class Written(NamedTuple):
    """The first `nbytes` bytes of a chunk are there, with this CRC-32."""

    nbytes: int
    crc: int


class Header(NamedTuple):
    """What the partial is of."""

    size: int
    chunk_bytes: int


class Journal:
    """The open journal of one partial; no other process has it open. Callers serialise appends."""

    def __init__(self, path: Path, wanted: Header, disk: Disk) -> None:
        """The journal is read, or begun anew when there is none for a file of that size.

        Raises:
            Busy: another process writes this partial.
            OSError: the disk refused.
        """
        self._disk = disk
        self._fd = disk.open_own(path)
        try:
            if not disk.lock(self._fd):
                raise Busy("Another program is downloading the same file into this store.")
            self._resume(wanted)
        except BaseException:
            disk.close(self._fd)
            raise

    def _resume(self, wanted: Header) -> None:
        data = _read_all(self._disk, self._fd)
        header = read_header(data)
        self.fresh = header is None or header.size != wanted.size
        self.header = wanted if header is None or self.fresh else header
        self.written = {} if self.fresh else read_records(data, self.header)
        if self.fresh:
            self._disk.truncate(self._fd, 0)
            self._put(_checked(_HEADER, _MAGIC, *wanted), 0)
        # Whole records only: what a kill cut off is written over.
        self._end = _HEADER.size + _RECORD.size * (
            0 if self.fresh else (len(data) - _HEADER.size) // _RECORD.size
        )

    def append(self, chunk: int, written: Written) -> None:
        """The journal says that of the chunk.

        Raises:
            OSError: the disk refused; the journal says what it said before.
        """
        self._put(_checked(_RECORD, chunk, *written), self._end)
        self._end += _RECORD.size
        if written.nbytes:
            self.written[chunk] = written
        else:
            self.written.pop(chunk, None)

    def close(self) -> None:
        """The journal stays on the disk and is free for others."""
        self._disk.close(self._fd)

    def _put(self, data: bytes, offset: int) -> None:
        rest = memoryview(data)
        while rest:
            done = self._disk.write_at(self._fd, rest, offset)
            rest, offset = rest[done:], offset + done


def read_header(data: bytes) -> Header | None:
    """The header that a journal begins with; None when it is damaged or of another kind."""
    if len(data) < _HEADER.size or not _sound(data[: _HEADER.size]):
        return None
    magic, size, chunk_bytes, _ = _HEADER.unpack_from(data)
    return Header(size, chunk_bytes) if magic == _MAGIC and chunk_bytes else None


def read_records(data: bytes, header: Header) -> dict[int, Written]:
    """What a journal's records say in the end, chunks in order."""
    written: dict[int, Written] = {}
    for offset in range(_HEADER.size, len(data) - _RECORD.size + 1, _RECORD.size):
        if not _sound(data[offset : offset + _RECORD.size]):
            continue
        chunk, nbytes, crc, _ = _RECORD.unpack_from(data, offset)
        if nbytes > chunk_length(header, chunk):
            continue
        written[chunk] = Written(nbytes, crc)
    return {chunk: written[chunk] for chunk in sorted(written) if written[chunk].nbytes}


def chunk_length(header: Header, chunk: int) -> int:
    """How many bytes the chunk has; 0 for one beyond the file's end."""
    return max(0, min(header.chunk_bytes, header.size - chunk * header.chunk_bytes))


def _read_all(disk: Disk, fd: int) -> bytes:
    size = min(disk.open_facts(fd).st_size, MAX_JOURNAL_BYTES)
    buffer = memoryview(bytearray(size))
    done = 0
    while done < size and (count := disk.read_at(fd, buffer[done:], done)):
        done += count
    return bytes(buffer[:done])


def _checked(form: struct.Struct, *values: bytes | int) -> bytes:
    packed = form.pack(*values, 0)[:-_CHECK_BYTES]
    return packed + zlib.crc32(packed).to_bytes(_CHECK_BYTES, "little")


def _sound(data: bytes) -> bool:
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    return zlib.crc32(body) == int.from_bytes(check, "little")
