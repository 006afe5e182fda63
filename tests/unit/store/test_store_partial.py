"""Blobs that arrive in pieces, survive a kill, and are taken over from other programs."""

import os
import zlib
from pathlib import Path

import pytest

from gemmad.api.errors import Busy, StoreBroken
from gemmad.core import ByteCount, FileEntry, digest_of
from gemmad.store.partial import DigestMismatch, Partial
from gemmad.store.store import Store

SIZE = (33 << 20) + 5
DATA = bytes(range(256)) * (SIZE // 256) + b"12345"
ENTRY = FileEntry(digest_of(DATA), ByteCount(len(DATA)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def put(partial: Partial, chunk: int, data: bytes = DATA) -> None:
    """One chunk has arrived."""
    begin = chunk * partial.chunk_bytes
    piece = data[begin : begin + partial.chunk_bytes]
    partial.write(begin, piece)
    partial.finish(chunk, zlib.crc32(piece))


def part_file(tmp_path: Path) -> Path:
    """The file that grows."""
    return next((tmp_path / "store" / "ingest").glob("*.part"))


def test_chunks_may_come_in_any_order(store: Store) -> None:
    """The blob exists when all are there and the hash is right, not before."""
    with store.partial(ENTRY) as partial:
        for chunk in reversed(range(partial.chunks)):
            assert not store.blobs.has(ENTRY)
            put(partial, chunk)
        partial.commit()

    assert store.blobs.has(ENTRY)
    assert store.partials() == []


def test_what_arrived_is_kept_for_the_next_time(store: Store) -> None:
    """After a close, or a kill, only the rest is missing."""
    with store.partial(ENTRY) as partial:
        put(partial, 1)

    [facts] = store.partials()
    assert facts.completed == partial.chunk_bytes
    with store.partial(ENTRY) as again:
        assert 1 not in again.missing()
        for chunk in again.missing():
            put(again, chunk)
        again.commit()
    assert store.blobs.has(ENTRY)


def test_a_chunk_that_changed_on_disk_is_missing_again(store: Store, tmp_path: Path) -> None:
    """What a power cut left of it is not believed."""
    with store.partial(ENTRY) as partial:
        put(partial, 0)
        put(partial, 1)
        begin = partial.chunk_bytes
    with part_file(tmp_path).open("r+b") as file:
        file.seek(begin + 77)
        file.write(b"\0\0\0")

    with store.partial(ENTRY) as again:
        assert 1 in again.missing()
        assert 0 not in again.missing()


def test_wrong_bytes_never_get_the_name(store: Store) -> None:
    """The mismatch is told, the partial stays, and a good chunk in its place heals it."""
    wrong = DATA[:100] + b"x" + DATA[101:]
    with store.partial(ENTRY) as partial:
        for chunk in range(partial.chunks):
            put(partial, chunk, wrong)
        with pytest.raises(DigestMismatch):
            partial.commit()
        assert not store.blobs.has(ENTRY)
        partial.reopen(0)
        put(partial, 0)
        partial.commit()

    assert store.blobs.has(ENTRY)


def test_a_partial_has_one_writer(store: Store) -> None:
    """A second one is told to wait."""
    with store.partial(ENTRY), pytest.raises(Busy):
        store.partial(ENTRY)


def test_partials_can_be_removed(store: Store) -> None:
    """And only then are they."""
    with store.partial(ENTRY) as partial:
        put(partial, 0)

    assert store.remove_partials() > 0
    assert store.partials() == []


def test_another_programs_file_is_adopted_and_left_as_it_was(store: Store, tmp_path: Path) -> None:
    """Mode and time of the other's file do not change; a wrong one is not taken."""
    other = tmp_path / "theirs"
    other.write_bytes(b"weights")
    os.chmod(other, 0o644)
    before = other.stat()
    entry = FileEntry(digest_of(b"weights"), ByteCount(7))

    assert store.adopt(entry, other)
    assert not store.adopt(FileEntry(digest_of(b"others"), ByteCount(6)), other)

    after = other.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert store.blobs.check(entry).read_bytes() == b"weights"


def test_an_adopted_file_that_its_owner_changes_is_noticed(store: Store, tmp_path: Path) -> None:
    """The store does not serve what is no longer what the name says."""
    other = tmp_path / "theirs"
    other.write_bytes(b"weights")
    entry = FileEntry(digest_of(b"weights"), ByteCount(7))
    assert store.adopt(entry, other)

    other.write_bytes(b"changed")

    if store.blobs.has(entry):  # a copy or a reflink is the store's own
        assert store.blobs.check(entry).read_bytes() == b"weights"
    else:
        with pytest.raises(StoreBroken):
            store.blobs.check(entry)
