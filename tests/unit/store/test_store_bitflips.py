"""Bit rot is found: every flipped bit of a pair's blobs, and nothing else is touched for it."""

import errno
import os
import random
from pathlib import Path

import pytest

from gemmad.core import FileEntry, ModelName
from gemmad.store.store import Store
from tests.fakes.faulty_disk import UnsyncedDisk
from tests.fakes.store_scenes import entry, manifest

A, B = ModelName.parse("a"), ModelName.parse("b")
DICE = random.Random(4)
FILES = {f"part{n}.safetensors": DICE.randbytes(size) for n, size in enumerate((1, 997, 40_000))}
DRAFTER = {"draft.safetensors": DICE.randbytes(5_000), "config.json": b"{}"}
EVERY = {**FILES, **DRAFTER}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two names: `a` is a pair, `b` shares its drafter."""
    store = Store(tmp_path / "store", UnsyncedDisk())
    for data in EVERY.values():
        store.blobs.add(entry(data), [data])
    store.commit(manifest("a", FILES, DRAFTER))
    store.commit(manifest("b", {"config.json": b"{}"}, DRAFTER))
    return store


def flip(path: Path, bit: int) -> None:
    """One bit on the disk is another; nothing else of the file is."""
    times = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(bit // 8)
        old = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([old ^ 1 << bit % 8]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    path.chmod(0o444)


def blobs(store: Store) -> dict[str, tuple[bytes, int]]:
    """Content and time of every blob."""
    found = (path for path in store._paths.blobs.rglob("*") if path.is_file())
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def find_and_repair(store: Store, file: str, bit: int) -> None:
    """The flip is found, named and mended; the other blobs are as they were."""
    rotten: FileEntry = entry(EVERY[file])
    before = blobs(store)
    path = store.blobs.check(rotten)
    flip(path, bit)

    verdicts = list(store.verify(A))

    assert {v.digest for v in verdicts if not v.ok} == {rotten.digest}
    assert {v.file for v in verdicts if v.digest == rotten.digest} == {file}
    assert blobs(store) == {name: kept for name, kept in before.items() if name != path.name}
    away = store._paths.quarantined(rotten.digest)
    assert away.stat().st_size == rotten.size
    missing = store.missing(store.get(A).files)
    assert missing == (rotten,)
    store.blobs.add(rotten, [EVERY[file]])
    assert blobs(store) == before
    assert all(verdict.ok for verdict in store.verify())


def flips(number: int) -> list[tuple[str, int]]:
    dice = random.Random(number)
    some = [(file, bit) for file, data in EVERY.items() for bit in (0, 8 * len(data) - 1)]
    while len(some) < number:
        file = dice.choice([*EVERY])
        some.append((file, dice.randrange(8 * len(EVERY[file]))))
    return some


def test_thirty_flipped_bits_are_found_and_mended(store: Store) -> None:
    """The first and the last bit of every file, and some between."""
    for file, bit in flips(30):
        find_and_repair(store, file, bit)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_flipped_bits_are_found_and_mended(store: Store) -> None:
    """All of them, each named."""
    for file, bit in flips(1_000):
        find_and_repair(store, file, bit)


def test_a_blob_that_cannot_be_opened_for_another_reason_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files are no damage: the verdict says why, and nothing is set aside."""
    before = blobs(store)
    really = store._disk.open_existing

    def refuse(path: Path) -> int:
        if store._paths.blobs in path.parents:
            raise OSError(errno.EMFILE, "Too many open files")
        return really(path)

    with monkeypatch.context() as patched:
        patched.setattr(store._disk, "open_existing", refuse)
        verdicts = list(store.verify(A))

    assert len(verdicts) == len(EVERY)
    assert all("Too many open files" in (verdict.why or "") for verdict in verdicts)
    assert blobs(store) == before
