"""One blob on its way here: written in chunks by any thread, resumed after any end, published.

Any thread may call anything, but `digest_ahead` and `commit` are for one thread at a time. `close`
waits for calls in flight, and ends early those that read back what an earlier life wrote.
"""

import contextlib
import hashlib
import threading
import zlib
from collections.abc import Callable, Iterator

from gemmad.api.errors import PullFailed
from gemmad.core import ByteCount, FileEntry, digest_hex
from gemmad.store.disk import Disk
from gemmad.store.journal import Header, Journal, Written, chunk_length
from gemmad.store.paths import StorePaths
from gemmad.store.publishing import publish

CHUNK_BYTES = 16 << 20
_READ_BYTES = 1 << 20


class DigestMismatch(PullFailed):
    """All chunks are there and their hash is another; `bad` are those the disk changed since."""

    code = "digest_mismatch"

    def __init__(self, message: str, bad: tuple[int, ...]) -> None:
        super().__init__(message, fix="Pull again.")
        self.bad = bad


class Partial:
    """The partial of one blob, open; its chunks survive a kill, and a crash as far as they check.

    `_lock` is between all callers and guards the journal and `_users`; `_hashing` is between those
    that read chunks back and guards `_hashes` and `_unchecked`. `_hashing` is taken first.
    """

    def __init__(
        self,
        entry: FileEntry,
        paths: StorePaths,
        disk: Disk,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        """What an earlier life wrote is known, and not yet checked.

        Raises:
            Busy: another process writes it.
            OSError: the disk refused.
        """
        self.entry = entry
        self._paths, self._disk, self._released = paths, disk, released
        self._part = paths.part(entry.digest)
        self._journal_path = paths.journal(entry.digest)
        disk.make_directory(paths.ingest)
        self._journal = Journal(self._journal_path, Header(entry.size, chunk_bytes), disk)
        try:
            self._fd = self._open_part(fresh=self._journal.fresh)
        except BaseException:
            self._journal.close()
            raise
        self._lock = threading.Condition()
        self._users = 0
        self._closed = False
        self._hashing = threading.Lock()
        self._hashes = [hashlib.sha256()]  # after 0, 1, 2... chunks from the file's beginning
        self._unchecked = dict(self._journal.written)

    def __enter__(self) -> "Partial":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def chunk_bytes(self) -> int:
        """Bytes of every chunk but the last; an older life may have chosen another number."""
        return self._journal.header.chunk_bytes

    @property
    def chunks(self) -> int:
        """How many chunks the file has."""
        return -(-self.entry.size // self.chunk_bytes)

    @property
    def completed(self) -> ByteCount:
        """Bytes of what is written; what an earlier life wrote counts until it fails its check."""
        with self._lock:
            return ByteCount(sum(known.nbytes for known in self._journal.written.values()))

    def missing(self) -> tuple[int, ...]:
        """The chunks still to be written; those of an earlier life were read and checked.

        Raises:
            PullFailed: the partial was closed meanwhile.
            OSError: the disk refused.
        """
        with self._hashing:
            self._recheck()
        with self._lock:
            return tuple(chunk for chunk in range(self.chunks) if not self._finished(chunk))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """The bytes of `data` stand at `offset`; no chunk counts as written before `finish`.

        Raises:
            PullFailed: they reach beyond the file's end, or the partial is closed.
            OSError: the disk refused.
        """
        view = memoryview(data).cast("B")
        if offset < 0 or offset + len(view) > self.entry.size:
            raise PullFailed(
                f"The file {self.entry.digest} is longer than the {self.entry.size} bytes "
                "announced.",
                fix="Pull again.",
            )
        with self._using():
            while view:
                done = self._disk.write_at(self._fd, view, offset)
                view, offset = view[done:], offset + done

    def finish(self, chunk: int, crc: int) -> None:
        """The chunk counts as written; `crc` is `zlib.crc32` of its bytes as they came.

        Raises:
            PullFailed: the partial is closed.
            OSError: the disk refused; the chunk is missing.
        """
        self.keep(chunk, chunk_length(self._journal.header, chunk), crc)

    def keep(self, chunk: int, nbytes: int, crc: int) -> None:
        """A later life may go on in the chunk after its first `nbytes`, which have this CRC-32.

        Errors as of `finish`.
        """
        assert 0 <= chunk < self.chunks, chunk
        assert 0 < nbytes <= chunk_length(self._journal.header, chunk), nbytes
        with self._using(), self._lock:
            self._journal.append(chunk, Written(nbytes, crc))

    def kept(self, chunk: int) -> Written:
        """How much of the chunk's beginning is written, and its CRC-32; call after `missing`."""
        with self._lock:
            return self._journal.written.get(chunk, Written(0, 0))

    def crc(self, chunk: int) -> int | None:
        """The CRC-32 that the chunk was finished with; None while it is missing."""
        with self._lock:
            return self._journal.written[chunk].crc if self._finished(chunk) else None

    def reopen(self, chunk: int) -> None:
        """The chunk is missing again; the running hash goes back to before it.

        Raises:
            PullFailed: the partial is closed.
            OSError: the disk refused.
        """
        with self._hashing, self._using(), self._lock:
            self._journal.append(chunk, Written(0, 0))
            self._unchecked.pop(chunk, None)
            del self._hashes[chunk + 1 :]

    def digest_ahead(self) -> None:
        """The running hash covers every finished chunk that has none missing before it.

        Raises:
            PullFailed: the partial was closed meanwhile.
            OSError: the disk refused.
        """
        while self._digest_next():
            pass

    def sync_ahead(self) -> None:
        """What is written by now has reached the disk, so that `commit` has less to wait for.

        Raises:
            PullFailed: the partial is closed.
            OSError: the disk refused; what was written cannot be trusted, and is gone.
        """
        try:
            with self._using():
                self._disk.sync(self._fd)
        except OSError:
            # A failed fsync marks the pages clean: a second one would lie.
            self.discard()
            raise

    def commit(self) -> None:
        """The blob exists under its digest, whole and on the disk; the partial is gone.

        Raises:
            DigestMismatch: the bytes are not those of the digest; all is kept for a closer look.
            PullFailed: a chunk is missing, or the partial is closed.
            OSError: the disk refused. After a failed sync what was written cannot be trusted, and
                is gone; else it stays for a later try.
        """
        self.digest_ahead()
        self._require_whole()
        with self._using():
            self._disk.truncate(self._fd, self.entry.size)
        self.sync_ahead()
        if not self._shut():
            raise _stopped()
        try:
            publish(self._part, self.entry.digest, self._paths, self._disk)
        finally:
            self._released()

    def discard(self) -> None:
        """Partial and journal are closed and gone, as far as the disk lets them."""
        if not self._shut():
            return
        try:
            for path in (self._part, self._journal_path):
                with contextlib.suppress(OSError):
                    self._disk.unlink(path)
        finally:
            self._released()

    def close(self) -> None:
        """Nothing is open; all that was written stays for a later life. Closing twice is fine."""
        if self._shut():
            self._released()

    # --- what is not for callers ---

    def _open_part(self, *, fresh: bool) -> int:
        fd = self._disk.open_own(self._part)
        try:
            if fresh:
                self._disk.truncate(fd, 0)
        except BaseException:
            self._disk.close(fd)
            raise
        return fd

    def _shut(self) -> bool:
        """The descriptors are closed; False when another call did that."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            self._lock.wait_for(lambda: not self._users)
        with contextlib.suppress(OSError):  # Linux closes even when it says that it failed
            self._disk.close(self._fd)
        with contextlib.suppress(OSError):
            self._journal.close()
        return True

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        """Inside, the descriptors stay open."""
        with self._lock:
            if self._closed:
                raise _stopped()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._lock.notify_all()

    def _finished(self, chunk: int) -> bool:
        known = self._journal.written.get(chunk)
        return known is not None and known.nbytes == chunk_length(self._journal.header, chunk)

    def _digest_next(self) -> bool:
        with self._hashing:
            self._recheck()
            chunk = len(self._hashes) - 1
            with self._lock:
                ready = chunk < self.chunks and self._finished(chunk)
            if ready:
                self._hashes.append(self._hashes[-1].copy())
                try:
                    length = chunk_length(self._journal.header, chunk)
                    self._read(chunk, length, hashed=True, checked=False)
                except BaseException:
                    self._hashes.pop()
                    raise
            return ready

    def _recheck(self) -> None:
        """What an earlier life wrote is read; a chunk that fails is missing. Holds `_hashing`."""
        while self._unchecked:
            chunk, known = next(iter(self._unchecked.items()))
            whole = known.nbytes == chunk_length(self._journal.header, chunk)
            hashed = whole and chunk == len(self._hashes) - 1
            if hashed:
                self._hashes.append(self._hashes[-1].copy())
            sound = False
            try:
                sound = self._read(chunk, known.nbytes, hashed=hashed) == known.crc
            finally:
                if hashed and not sound:
                    self._hashes.pop()
            self._unchecked.pop(chunk)
            with self._lock:
                # A caller may have written the chunk anew while its old bytes were read.
                if not sound and self._journal.written.get(chunk) == known:
                    self._journal.append(chunk, Written(0, 0))

    def _read(self, chunk: int, nbytes: int, *, hashed: bool, checked: bool = True) -> int:
        """The CRC-32 of the chunk's first bytes; with `hashed` the newest hash takes them in.

        Not `checked`, the hash alone is wanted: a CRC-32 costs half as much again.
        """
        crc, done, begin = 0, 0, chunk * self.chunk_bytes
        buffer = memoryview(bytearray(min(_READ_BYTES, nbytes)))
        while done < nbytes:
            with self._using():
                count = self._disk.read_at(self._fd, buffer[: nbytes - done], begin + done)
            if not count:
                return ~crc  # cut short: cannot be what was written
            if checked:
                crc = zlib.crc32(buffer[:count], crc)
            if hashed:
                self._hashes[-1].update(buffer[:count])
            done += count
        return crc

    def _require_whole(self) -> None:
        with self._lock:
            missing = [chunk for chunk in range(self.chunks) if not self._finished(chunk)]
        if missing:
            raise PullFailed(
                f"The file {self.entry.digest} is not whole: {len(missing)} of {self.chunks} "
                "parts are missing.",
                fix="Pull again.",
            )
        actual = self._hashes[-1].hexdigest()
        if actual != digest_hex(self.entry.digest):
            raise DigestMismatch(
                f"The file {self.entry.digest} came as sha256:{actual}.", self._changed()
            )

    def _changed(self) -> tuple[int, ...]:
        """The chunks whose bytes on the disk are no longer those that came; they are missing."""
        with self._hashing:
            with self._lock:
                self._unchecked = dict(self._journal.written)
            before = set(self._unchecked)
            self._hashes = [hashlib.sha256()]
            self._recheck()
            with self._lock:
                return tuple(sorted(before - set(self._journal.written)))


def _stopped() -> PullFailed:
    return PullFailed("The download was stopped.", fix="Pull again to go on.")
