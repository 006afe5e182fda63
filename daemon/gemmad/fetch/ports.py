"""What a fetch needs of others: the address of a file, and the partial that takes its bytes."""

from typing import Protocol

from gemmad.core import ByteCount, FileEntry


class RemoteFile(Protocol):
    """A file behind a URL; `sources.half.Remote` is one."""

    @property
    def url(self) -> str:
        """Where it is."""
        ...

    @property
    def token(self) -> str | None:
        """Opens it; for the URL's own host and no other."""
        ...


class KeptBytes(Protocol):
    """How much of a chunk's beginning is written."""

    @property
    def nbytes(self) -> int:
        """Bytes from the chunk's beginning."""
        ...

    @property
    def crc(self) -> int:
        """Their CRC-32."""
        ...


class Partial(Protocol):
    """A blob on its way, see `store.partial.Partial`; `write`, `finish`, `keep` from any thread."""

    @property
    def entry(self) -> FileEntry:
        """What it must become."""
        ...

    @property
    def chunk_bytes(self) -> int:
        """Bytes of every chunk but the last."""
        ...

    @property
    def chunks(self) -> int:
        """How many chunks the file has."""
        ...

    @property
    def completed(self) -> ByteCount:
        """Bytes that are written."""
        ...

    def missing(self) -> tuple[int, ...]:
        """The chunks still to be written."""
        ...

    def kept(self, chunk: int) -> KeptBytes:
        """How much of a missing chunk is written."""
        ...

    def crc(self, chunk: int) -> int | None:
        """The CRC-32 of a finished chunk."""
        ...

    def write(self, offset: int, data: memoryview) -> None:
        """The bytes stand at `offset`."""
        ...

    def keep(self, chunk: int, nbytes: int, crc: int) -> None:
        """A later life may go on after the chunk's first `nbytes`."""
        ...

    def finish(self, chunk: int, crc: int) -> None:
        """The chunk is written."""
        ...

    def reopen(self, chunk: int) -> None:
        """The chunk is missing again."""
        ...

    def digest_ahead(self) -> None:
        """What is written from the file's beginning on is hashed."""
        ...

    def sync_ahead(self) -> None:
        """What is written has reached the disk; after an OSError nothing of it can be trusted."""
        ...

    def commit(self) -> None:
        """The blob is in the store; raises PullFailed with the code `digest_mismatch`."""
        ...

    def discard(self) -> None:
        """Nothing of it is left."""
        ...
