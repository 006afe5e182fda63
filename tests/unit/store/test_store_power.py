"""A power cut after any effect on the file system leaves a store that is whole.

Every operation is recorded with its fsyncs; every prefix is replayed with what no fsync covered
dropped, torn and reordered. What had been promised before the cut (a commit that returned, a name
that was there) is there after it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gemmad.core import ModelName
from gemmad.store.store import Store
from tests.fakes.power_loss import Log, RecordingDisk, Sealed, Synced, chances, cut
from tests.fakes.store_operations import (
    DATA,
    ENTRY,
    Act,
    arrive,
    open_store,
)  # fmt: skip
from tests.fakes.store_scenes import check_invariants, entry, manifest, put

PROMISED = 10_000
Step = Callable[[Store, Path], None]


def pull(store: Store, root: Path) -> None:
    Act(store, root).pull()


def half_pull(store: Store, root: Path) -> None:
    with store.partial(ENTRY) as partial:
        for chunk in (0, 3, 4):
            arrive(partial, chunk)


def adopt(store: Store, root: Path) -> None:
    (root.parent / "theirs").write_bytes(b"theirs")
    assert store.adopt(entry(b"theirs"), root.parent / "theirs", link=False)


def link(store: Store, root: Path) -> None:
    (root.parent / "linked").write_bytes(b"linked")
    store._disk.clone = refuse
    assert store.adopt(entry(b"linked"), root.parent / "linked")


def refuse(*_: int) -> None:
    raise OSError("no reflinks")


def reflink(store: Store, root: Path) -> None:
    (root.parent / "cloned").write_bytes(b"cloned")
    assert store.adopt(entry(b"cloned"), root.parent / "cloned")


def bound(name: str, data: bytes) -> Step:
    return lambda store, _: store.commit(manifest(name, {"f.json": data}))


def gone(name: str) -> Step:
    return lambda store, _: store.delete(ModelName.parse(name))


# Each step, and the names that are there once it has returned.
HISTORIES: dict[str, list[tuple[Step, set[str]]]] = {
    "pulled": [
        (half_pull, set()),
        (pull, set()),
        (bound("a", DATA), {"a:latest"}),
    ],
    "adopted": [
        (reflink, set()),
        (bound("a", b"cloned"), {"a:latest"}),
        (link, {"a:latest"}),
        (bound("ns/b:x", b"linked"), {"a:latest", "ns/b:x"}),
        (adopt, {"a:latest", "ns/b:x"}),
        (bound("ns/b:y", b"theirs"), {"a:latest", "ns/b:x", "ns/b:y"}),
    ],
    "changed": [
        (lambda store, _: put(store, "a", b"one", b"shared"), {"a:latest"}),
        (lambda store, _: put(store, "a", b"two", b"shared"), {"a:latest"}),
        (
            lambda store, _: store.copy(ModelName.parse("a"), ModelName.parse("n/c")),
            {"a:latest", "n/c:latest"},
        ),
        (gone("a"), {"n/c:latest"}),
        (lambda store, _: put(store, "a", b"two", b"three"), {"a:latest", "n/c:latest"}),
        (gone("n/c"), {"a:latest"}),
        (lambda store, _: store.gc(dry_run=False, min_age_s=0), {"a:latest"}),
    ],
}


def record(history: list[tuple[Step, set[str]]], root: Path) -> tuple[Log, list[tuple[int, set]]]:
    """The effects of a history, and after how many of them which names had been promised."""
    root.parent.mkdir(parents=True)
    disk = RecordingDisk(root)
    store = open_store(root, disk)
    promised: list[tuple[int, set[str]]] = [(0, set())]
    for step, names in history:
        step(store, root)
        promised.append((len(disk.log.effects), names))
    return disk.log, promised


def replay(name: str, tmp_path: Path, seeds: int, stride: int = 1) -> int:
    """Every prefix (or one in `stride`), cut in many ways; how many states were looked at."""
    log, promised = record(HISTORIES[name], tmp_path / name / "store")
    states = 0
    for length in range(0, len(log.effects) + 1, stride):
        reached = max(step for step, (at, _) in enumerate(promised) if at <= length)
        before = promised[reached][1]
        after = promised[reached + 1][1] if reached + 1 < len(promised) else before
        for chance in chances(seeds):
            root = tmp_path / "left"
            cut(log, length, chance, root)
            found = check_invariants(root / "store")
            assert before & after <= found <= before | after, (length, log.effects[length - 3 :])
            shutil.rmtree(root)
            states += 1
    return states


@pytest.mark.parametrize("name", HISTORIES)
def test_a_power_cut_at_some_points_leaves_a_whole_store(name: str, tmp_path: Path) -> None:
    """One point in seven, cut with nothing unsynced left, with all, and once at random."""
    assert replay(name, tmp_path, seeds=1, stride=7) > 20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_power_cuts_leave_a_whole_store(tmp_path: Path) -> None:
    """Every point of every history."""
    states = {name: replay(name, tmp_path, seeds=38) for name in HISTORIES}
    print(sum(states.values()), states)
    assert sum(states.values()) >= PROMISED


def test_a_store_that_does_not_sync_its_files_would_be_caught(tmp_path: Path) -> None:
    """The replay has teeth: without the fsyncs of files it finds a blob that is not whole."""
    log, _ = record(HISTORIES["changed"], tmp_path / "a" / "store")
    blobs = {effect.node for effect in log.effects if isinstance(effect, Sealed)}
    log.effects = [e for e in log.effects if not (isinstance(e, Synced) and e.node in blobs)]
    broken = 0
    for number, chance in enumerate(chances(20)):
        root = tmp_path / str(number)
        cut(log, len(log.effects), chance, root)
        try:
            check_invariants(root / "store")
        except AssertionError:
            broken += 1
    assert broken
