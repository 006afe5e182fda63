"""Blobs: whole or not there."""

import os
import stat

import pytest

from gemmad.api.errors import PullFailed, StoreBroken
from gemmad.core import ByteCount, FileEntry, digest_hex
from gemmad.store.store import Store
from tests.fakes.faulty_disk import FaultyDisk
from tests.fakes.store_scenes import entry, put

DATA = b"some weights"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def blob_path(store, data):
    hexed = digest_hex(entry(data).digest)
    return store._paths.blobs / hexed[:2] / hexed


def test_a_blob_is_published_read_only_under_its_hash(store):
    """Its content and mode are right and nothing stays in ingest."""
    store.blobs.add(entry(DATA), [DATA])

    path = blob_path(store, DATA)
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert not list(store._paths.ingest.iterdir())


@pytest.mark.parametrize("sent", [b"", b"some weight", b"some weights!", b"SOME weights"])
def test_content_that_differs_from_its_digest_is_never_published(store, sent):
    """Short, long and altered content is refused and leaves nothing behind."""
    with pytest.raises(PullFailed):
        store.blobs.add(entry(DATA), [sent])

    assert not blob_path(store, DATA).exists()
    assert not list(store._paths.ingest.iterdir())


def test_a_blob_is_synced_before_it_is_named_and_its_directory_after(tmp_path):
    """The order of calls survives a power cut: data, then name, then the name's directory."""
    disk = FaultyDisk()
    store = Store(tmp_path / "store", disk)
    disk.calls.clear()

    put(store, "a", DATA)

    order = [call.split()[0] for call in disk.calls]
    blob_rename = order.index("rename")
    assert "sync" in order[:blob_rename]
    assert order[blob_rename + 1 : blob_rename + 3] == ["seal", "sync_directory"]
    manifest_rename = len(order) - 1 - order[::-1].index("rename")
    assert order[manifest_rename - 2 : manifest_rename] == ["sync", "close"]
    assert order[manifest_rename + 1] == "sync_directory"


def test_a_blob_of_changed_size_is_damaged(store):
    """The size is looked at on every load."""
    store.blobs.add(entry(DATA), [DATA])
    path = blob_path(store, DATA)
    path.chmod(0o644)
    path.write_bytes(b"cut")

    with pytest.raises(StoreBroken, match="damaged"):
        store.blobs.check(entry(DATA))


def test_a_blob_written_to_after_publishing_is_hashed_again(store):
    """Equal size does not hide a change, because the time changed."""
    store.blobs.add(entry(DATA), [DATA])
    path = blob_path(store, DATA)
    path.chmod(0o644)
    path.write_bytes(b"SOME weights")

    with pytest.raises(StoreBroken, match="was changed"):
        store.blobs.check(entry(DATA))


def test_a_touched_but_equal_blob_is_good_and_sealed_again(store):
    """A copied store (new times) costs one hash a file, then none."""
    store.blobs.add(entry(DATA), [DATA])
    os.utime(blob_path(store, DATA))

    store.blobs.check(entry(DATA))

    assert blob_path(store, DATA).stat().st_mtime_ns == 1_000_000_000


def plant(kind, at, canary):
    """Somebody put this at a name that the store is about to write."""
    canary.write_bytes(b"precious")
    if kind == "symlink":
        at.symlink_to(canary)
    elif kind == "fifo":
        os.mkfifo(at)
    elif kind == "directory":
        at.mkdir()
    else:
        os.link(canary, at)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hardlink"])
def test_what_someone_planted_at_a_new_name_is_not_written_through(store, tmp_path, kind):
    """It loses the name unchanged, and the blob is the store's own file."""
    plant(kind, store._paths.new(entry(DATA).digest), tmp_path / "canary")

    store.blobs.add(entry(DATA), [DATA])

    assert (tmp_path / "canary").read_bytes() == b"precious"
    assert blob_path(store, DATA).lstat().st_nlink == 1
    assert store.blobs.has(entry(DATA))


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "hardlink"])
def test_what_someone_planted_at_a_part_name_is_refused(store, tmp_path, kind):
    """A partial is only ever the store's own file; a FIFO does not hang the pull."""
    plant(kind, store._paths.part(entry(DATA).digest), tmp_path / "canary")

    with pytest.raises(OSError, match=r"plain file|symbolic|directory|device"):
        store.partial(entry(DATA))
    assert (tmp_path / "canary").read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_someone_planted_at_a_blob_name_is_not_a_blob(store, tmp_path, kind):
    """Only a regular file counts, even when what the link points at has the right content."""
    path = blob_path(store, DATA)
    path.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(DATA)
    if kind == "symlink":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()

    assert not store.blobs.has(entry(DATA))
    with pytest.raises(StoreBroken):
        store.blobs.check(entry(DATA))


def test_a_bad_digest_never_becomes_a_path(store):
    """A digest that is a path is refused before any file is touched."""
    with pytest.raises(Exception, match="not a digest"):
        store.blobs.add(FileEntry("sha256:../../etc/passwd", ByteCount(1)), [b"x"])
