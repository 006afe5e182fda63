"""A full disk, a real one: at every size the store stays whole, and goes on when there is room."""

import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gemmad.api.errors import GemmaError
from gemmad.store.store import Store
from tests.fakes.store_scenes import check_invariants, entry, manifest, put

PAGE = os.sysconf("SC_PAGESIZE")
CHUNK = 4 * PAGE
DATA = os.urandom(6 * CHUNK + 123)
ENTRY = entry(DATA)
PAGES = 56  # enough: the partial, its journal, a name and its manifest
NODES = 24


@contextmanager
def small_disk(at: Path, options: str) -> Iterator[Path]:
    """A file system of that size; skipped where mounting is not for us."""
    at.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def pull(store: Store) -> None:
    """What a pull does: chunks, the blob, its name."""
    with store.pin({ENTRY.digest}):
        if not store.blobs.has(ENTRY):
            with store.partial(ENTRY) as partial:
                for chunk in partial.missing():
                    piece = DATA[chunk * CHUNK : (chunk + 1) * CHUNK]
                    partial.write(chunk * CHUNK, piece)
                    partial.finish(chunk, zlib.crc32(piece))
                partial.commit()
        store.commit(manifest("big", {"f.gguf": DATA}))


def fill_and_go_on(disk: Path, more: str) -> bool:
    """A pull into that disk, then with more room; whether the first one fitted."""
    fitted = False
    with suppress(OSError, GemmaError):
        store = Store(disk / "store", chunk_bytes=CHUNK)
        put(store, "small", b"s")
        pull(store)
        fitted = True
    subprocess.run(["mount", "-o", f"remount,{more}", str(disk)], check=True)
    assert check_invariants(disk / "store") <= {"small:latest", "big:latest"}
    again = Store(disk / "store", chunk_bytes=CHUNK)
    put(again, "small", b"s")
    pull(again)
    assert check_invariants(disk / "store") == {"small:latest", "big:latest"}
    assert again.partials() == []
    return fitted


def sweep(tmp_path: Path, sizes: range, nodes: range) -> tuple[int, int]:
    """Every size, every number of files; how many disks were too small, and how many were not."""
    outcomes = []
    for pages in sizes:
        with small_disk(tmp_path / "disk", f"size={pages * PAGE}") as disk:
            outcomes.append(fill_and_go_on(disk, f"size={4 * PAGES * PAGE}"))
    for count in nodes:
        with small_disk(tmp_path / "disk", f"size=1m,nr_inodes={count}") as disk:
            outcomes.append(fill_and_go_on(disk, "nr_inodes=100"))
    return outcomes.count(False), outcomes.count(True)


def test_a_pull_into_a_disk_too_small_leaves_a_whole_store(tmp_path: Path) -> None:
    """Some sizes; with more room the next pull goes on."""
    full, fitted = sweep(tmp_path, range(1, PAGES, 9), range(3, NODES, 7))
    assert full >= 5
    assert fitted >= 1


@pytest.mark.slow
def test_a_pull_into_a_disk_of_every_size_leaves_a_whole_store(tmp_path: Path) -> None:
    """Every page more, from none to enough, and every file more."""
    full, fitted = sweep(tmp_path, range(1, PAGES), range(2, NODES))
    print(full, fitted)
    assert full + fitted >= 64
    assert full >= 30
