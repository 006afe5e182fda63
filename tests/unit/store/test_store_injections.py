"""Every call that any operation makes to the file system dies or fails once; the store stays whole.

After each: the store is opened afresh, no name is corrupt and none is lost, of the chunks that had
arrived at most one comes again, and the next attempt does what the operation is for.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemmad.api.errors import GemmaError
from tests.fakes.faulty_disk import WRITES, FaultyDisk, Killed
from tests.fakes.store_operations import (
    ENTRY,
    OPERATIONS,
    Act,
    Operation,
    begin,
    check_done,
    check_whole,
    listed,
    open_store,
)  # fmt: skip

ANYWHERE = ("kill", "kill-after", "eio", "enospc")
IN_A_WRITE = ("short", "less")
FEW = 4  # of every operation and mode, in the fast suite
PROMISED = 2_000


class Scene:
    """One operation's beginning, made once and copied for every injection."""

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation = operation
        self._folder = folder
        self._tries = itertools.count()
        self._first = folder / "first"
        self._first.mkdir(parents=True)
        begin(operation, self._first / "store")
        self.before = {*listed(self.fresh())}
        self.calls = self._probe()

    def fresh(self) -> Path:
        """A store as it is before the operation."""
        folder = self._folder / str(next(self._tries))
        shutil.copytree(self._first, folder)
        return folder / "store"

    def _probe(self) -> list[str]:
        disk, root = FaultyDisk(reflinks=self.operation.reflinks), self.fresh()
        self.operation.act(Act(open_store(root, disk), root))
        check_done(self.operation, root)
        assert disk.open_files == 0
        return disk.calls

    def injections(self) -> Iterator[tuple[int, str]]:
        """Every call, in every way it can fail."""
        for number, call in enumerate(self.calls, 1):
            writes = call.split()[0] in WRITES
            yield from ((number, mode) for mode in ANYWHERE + IN_A_WRITE * writes)

    def inject(self, number: int, mode: str) -> None:
        """The operation is hit there, and all that must hold after it is checked."""
        root = self.fresh()
        disk = FaultyDisk(number, mode, reflinks=self.operation.reflinks)
        act, store, died = None, None, False
        try:
            store = open_store(root, disk)
            act = Act(store, root)
            self.operation.act(act)
        except Killed:
            died = True
        except (OSError, GemmaError):
            assert mode in ("eio", "enospc")
        assert disk.failed, "nothing was injected"
        check_whole(self.operation, root, self.before)
        if not lies(disk.failed):
            check_chunks(self.operation, root, act)
        if not died and store is not None:  # the daemon lives on, with nothing open or claimed
            assert disk.open_files == 0, disk.failed
        again = store if store is not None and not died else open_store(root)
        self.operation.act(Act(again, root))
        check_whole(self.operation, root, self.before)
        check_done(self.operation, root)
        shutil.rmtree(root.parent)


def lies(call: str) -> bool:
    """After a failed fsync what was written cannot be trusted, and is given up."""
    return call.split()[0] == "sync"


def check_chunks(operation: Operation, root: Path, act: Act | None) -> None:
    """Of what had arrived at most one chunk must come again."""
    arrived = {*operation.chunks} | (act.arrived if act else set())
    store = open_store(root)
    if arrived and not store.blobs.has(ENTRY):
        with store.partial(ENTRY) as partial:
            lost = arrived & {*partial.missing()}
            assert len(lost) <= 1, lost


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_hit_at_a_few_calls_leaves_a_whole_store(name: str, tmp_path: Path) -> None:
    """A few calls of every operation in every way; the slow test below does all of them."""
    scene = Scene(OPERATIONS[name], tmp_path)
    every = list(scene.injections())
    for number, mode in every[:: max(1, len(every) // FEW)]:
        scene.inject(number, mode)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_thousand_injections_leave_a_whole_store(tmp_path: Path) -> None:
    """Every call of every operation, in every way it can fail."""
    made = {}
    for name, operation in OPERATIONS.items():
        scene = Scene(operation, tmp_path / name)
        for number, mode in scene.injections():
            scene.inject(number, mode)
            made[name] = made.get(name, 0) + 1
    print(sum(made.values()), made)
    assert sum(made.values()) >= PROMISED
