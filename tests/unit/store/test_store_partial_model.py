"""A partial does what a simple model of it does, whatever comes in whatever order and life."""

import tempfile
import zlib
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gemmad.api.errors import PullFailed
from gemmad.core import ByteCount, FileEntry
from gemmad.store.partial import DigestMismatch, Partial
from gemmad.store.store import Store
from tests.fakes.faulty_disk import UnsyncedDisk
from tests.fakes.store_scenes import entry

CHUNK, CHUNKS = 16, 5
DATA = bytes(range(CHUNK * (CHUNKS - 1) + 7))
WRONG = bytes(255 - byte for byte in DATA)
ENTRY = entry(DATA)
CHUNK_NUMBERS = st.integers(0, CHUNKS - 1)


def piece(data: bytes, chunk: int) -> bytes:
    return data[chunk * CHUNK : (chunk + 1) * CHUNK]


class PartialMachine(RuleBasedStateMachine):
    """`known` is what stands in each chunk that counts: how many bytes, and are they right."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, tuple[int, bytes]] = {}
        self.committed = False

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name) / "store"
        self.partial = self.open()

    def open(self, entry: FileEntry = ENTRY) -> Partial:
        self.store = Store(self.root, UnsyncedDisk(), chunk_bytes=CHUNK)
        return self.store.partial(entry)

    def teardown(self) -> None:
        if hasattr(self, "partial"):
            self.partial.close()
            self.folder.cleanup()

    def put(self, chunk: int, data: bytes) -> None:
        if self.known.get(chunk, (0, b""))[0]:
            self.partial.reopen(chunk)
        self.partial.write(chunk * CHUNK, piece(data, chunk))
        self.partial.finish(chunk, zlib.crc32(piece(data, chunk)))
        self.known[chunk] = (len(piece(data, chunk)), data)

    @precondition(lambda self: not self.committed)
    @rule(chunk=CHUNK_NUMBERS)
    def right_chunk(self, chunk: int) -> None:
        self.put(chunk, DATA)

    @precondition(lambda self: not self.committed)
    @rule(chunk=CHUNK_NUMBERS)
    def wrong_chunk(self, chunk: int) -> None:
        self.put(chunk, WRONG)

    @precondition(lambda self: not self.committed)
    @rule(chunk=CHUNK_NUMBERS, nbytes=st.integers(1, 6))
    def first_bytes(self, chunk: int, nbytes: int) -> None:
        if chunk not in self.known:
            data = piece(DATA, chunk)[:nbytes]
            self.partial.write(chunk * CHUNK, data)
            self.partial.keep(chunk, nbytes, zlib.crc32(data))
            self.known[chunk] = (nbytes, DATA)

    @precondition(lambda self: not self.committed)
    @rule(chunk=CHUNK_NUMBERS)
    def lost_chunk(self, chunk: int) -> None:
        self.partial.reopen(chunk)
        self.known.pop(chunk, None)

    @precondition(lambda self: not self.committed)
    @rule()
    def digest_ahead(self) -> None:
        self.partial.digest_ahead()

    @precondition(lambda self: not self.committed)
    @rule(excess=st.integers(1, 40))
    def too_many_bytes(self, excess: int) -> None:
        try:
            self.partial.write(ENTRY.size - 3, b"x" * (3 + excess))
        except PullFailed:
            return
        raise AssertionError("bytes beyond the end were taken")

    @precondition(lambda self: not self.committed)
    @rule()
    def next_life(self) -> None:
        self.partial.close()
        self.partial = self.open()

    @precondition(lambda self: not self.committed)
    @rule(chunk=CHUNK_NUMBERS)
    def next_life_finds_a_chunk_changed(self, chunk: int) -> None:
        self.partial.close()
        with next((self.root / "ingest").glob("*.part")).open("r+b") as file:
            file.seek(chunk * CHUNK)
            old = file.read(1)
            file.seek(chunk * CHUNK)
            file.write(bytes([old[0] ^ 1]) if old else b"")
        if old:
            self.known.pop(chunk, None)
        self.partial = self.open()

    @precondition(lambda self: not self.committed)
    @rule()
    def next_life_says_another_size(self) -> None:
        self.partial.close()
        self.open(FileEntry(ENTRY.digest, ByteCount(ENTRY.size + 1))).close()
        self.known.clear()
        self.partial = self.open()

    @precondition(lambda self: not self.committed)
    @rule()
    def commit(self) -> None:
        try:
            self.partial.commit()
        except DigestMismatch:
            assert not self.missing()
            assert any(data is WRONG for _, data in self.known.values())
        except PullFailed:
            assert self.missing()
        else:
            assert all(data is DATA for _, data in self.known.values())
            self.committed = True

    @precondition(lambda self: self.committed)
    @rule()
    def next_life_after_the_commit(self) -> None:
        """What is whole stays so."""
        self.store = Store(self.root, UnsyncedDisk(), chunk_bytes=CHUNK)

    def missing(self) -> list[int]:
        return [
            chunk
            for chunk in range(CHUNKS)
            if self.known.get(chunk, (0, b""))[0] < len(piece(DATA, chunk))
        ]

    @invariant()
    def is_what_the_model_says(self) -> None:
        if not hasattr(self, "partial"):
            return
        assert self.store.blobs.has(ENTRY) is self.committed
        if self.committed:
            assert self.store.blobs.check(ENTRY).read_bytes() == DATA
            assert self.store.partials() == []
            return
        assert [*self.partial.missing()] == self.missing()
        for chunk in range(CHUNKS):
            nbytes, data = self.known.get(chunk, (0, b""))
            kept = self.partial.kept(chunk)
            assert kept == (nbytes, zlib.crc32(piece(data, chunk)[:nbytes]) if nbytes else 0)
        assert self.partial.completed == sum(nbytes for nbytes, _ in self.known.values())


PartialMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class TestPartialModel(PartialMachine.TestCase):
    """Random arrivals, wrong chunks, other lives, other sizes."""
