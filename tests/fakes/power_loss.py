"""A disk that notes what it did, and what may be left of that after the power was cut.

POSIX promises little: what `sync` covered of a file's bytes is there, and what `sync_directory`
covered of a directory's names. Anything later may be there or not, each name and each write for
itself, in any order, a write also in part. A file whose name is there may lack all its bytes.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gemmad.store.disk import PUBLISHED_NS, Disk

Chance = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Entry:
    """In `folder`, `name` is from now on that file or directory, or nothing."""

    folder: int
    name: str
    node: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes of a file at `offset`; None: cut or grown to `offset`."""

    node: int
    offset: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Sealed:
    node: int


@dataclass(frozen=True, slots=True)
class Synced:
    """All changes of the file, or all entries of the directory, are on the disk."""

    node: int


@dataclass(slots=True)
class Log:
    """Effects in order; node 0 is the directory in which the store's own is made."""

    effects: list[Entry | Change | Sealed | Synced] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {0})


class RecordingDisk(Disk):
    """The real disk under `root`'s parent, which notes every effect. One thread."""

    def __init__(self, root: Path) -> None:
        self.log = Log()
        self._nodes: dict[Path, int] = {root.parent: 0}
        self._files: dict[int, int] = {}  # descriptor: node
        self._ends: dict[int, int] = {}  # descriptor: where `write` goes on
        self._linked: dict[int, int] = {}  # inode of another program's file: node
        self._next = 0

    def make_directory(self, path: Path) -> None:
        for each in reversed([path, *path.parents]):
            if not each.exists():
                self.log.folders.add(self._name(each, self._new_node()))
        super().make_directory(path)

    def remove_directory(self, path: Path) -> None:
        super().remove_directory(path)
        self._unname(path)

    def sync_directory(self, path: Path) -> None:
        self.log.effects.append(Synced(self._nodes[path]))

    def sync(self, fd: int) -> None:
        node = self._files.get(fd, self._linked.get(os.fstat(fd).st_ino))
        if node is not None:
            self.log.effects.append(Synced(node))

    def rename(self, source: Path, destination: Path) -> None:
        super().rename(source, destination)
        node = self._unname(source)
        self._name(destination, node)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._unname(path)

    def link(self, source: Path, destination: Path) -> None:
        super().link(source, destination)
        node = self._name(destination, self._new_node())
        self._linked[source.stat().st_ino] = node
        self.log.effects.append(Change(node, 0, source.read_bytes()))

    def seal(self, path: Path) -> None:
        super().seal(path)
        self.log.effects.append(Sealed(self._nodes[path]))

    def create(self, path: Path) -> int:
        fd = super().create(path)
        return self._opened(fd, self._name(path, self._new_node()))

    def open_own(self, path: Path) -> int:
        fd = super().open_own(path)
        if path not in self._nodes:
            self._name(path, self._new_node())
        return self._opened(fd, self._nodes[path])

    def close(self, fd: int) -> None:
        super().close(fd)
        self._files.pop(fd, None)

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self.log.effects.append(Change(self._files[fd], size, None))

    def write(self, fd: int, data: bytes | memoryview) -> int:
        count = super().write(fd, data)
        self.log.effects.append(Change(self._files[fd], self._ends[fd], bytes(data[:count])))
        self._ends[fd] += count
        return count

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        count = super().write_at(fd, data, offset)
        self.log.effects.append(Change(self._files[fd], offset, bytes(data[:count])))
        return count

    def clone(self, source: int, destination: int) -> None:
        data = os.pread(source, os.fstat(source).st_size, 0)
        os.pwrite(destination, data, 0)
        self.log.effects.append(Change(self._files[destination], 0, data))

    def _new_node(self) -> int:
        self._next += 1
        return self._next

    def _opened(self, fd: int, node: int) -> int:
        self._files[fd], self._ends[fd] = node, 0
        return fd

    def _name(self, path: Path, node: int) -> int:
        self._nodes[path] = node
        self.log.effects.append(Entry(self._nodes[path.parent], path.name, node))
        return node

    def _unname(self, path: Path) -> int:
        node = self._nodes.pop(path)
        self.log.effects.append(Entry(self._nodes[path.parent], path.name, None))
        return node


def cut(log: Log, length: int, chance: Chance, root: Path) -> None:
    """`root` is what is left of the first `length` effects; each unsynced one by its chance.

    `chance` gives a number from 0 (this effect is lost) to 1 (it is on the disk).
    """
    names: dict[tuple[int, str], list[int | None]] = {}
    changes: dict[int, list[Change | Sealed]] = {}
    sure: dict[int, int] = {}  # how many of a file's changes are
    for effect in log.effects[:length]:
        if isinstance(effect, Entry):
            names.setdefault((effect.folder, effect.name), [None]).append(effect.node)
        elif isinstance(effect, Synced) and effect.node in log.folders:
            for key in names:
                if key[0] == effect.node:
                    del names[key][:-1]
        elif isinstance(effect, Synced):
            sure[effect.node] = len(changes.get(effect.node, ()))
        else:
            changes.setdefault(effect.node, []).append(effect)
    left = {key: _state(states, chance) for key, states in names.items()}
    files = {node: _content(done, sure.get(node, 0), chance) for node, done in changes.items()}
    _build(log, left, files, 0, root)


def _state(states: list[int | None], chance: Chance) -> int | None:
    return states[round(chance() * (len(states) - 1))]


def _content(changes: list[Change | Sealed], sure: int, chance: Chance) -> tuple[bytes, bool]:
    data, sealed = bytearray(), False
    for number, change in enumerate(changes):
        share = 1.0 if number < sure else chance()
        if isinstance(change, Sealed):
            sealed = sealed or share > 0.5
        elif change.data is None:
            if share > 0.5:
                data = data[: change.offset].ljust(change.offset, b"\0")
        else:
            kept = change.data[: round(share * len(change.data))]
            grown = change.offset + (len(change.data) if share else 0)  # the size may come first
            data = data.ljust(grown, b"\0")
            data[change.offset : change.offset + len(kept)] = kept
    return bytes(data), sealed


def _build(
    log: Log,
    names: dict[tuple[int, str], int | None],
    files: dict[int, tuple[bytes, bool]],
    folder: int,
    path: Path,
) -> None:
    path.mkdir(exist_ok=True)
    for (parent, name), node in names.items():
        if parent != folder or node is None:
            continue
        if node in log.folders:
            _build(log, names, files, node, path / name)
            continue
        data, sealed = files.get(node, (b"", False))
        (path / name).write_bytes(data)
        if sealed:
            os.utime(path / name, ns=(PUBLISHED_NS, PUBLISHED_NS))


def chances(seeds: int) -> Iterator[Chance]:
    """Nothing unsynced is left; all is; then as dice fall: many lost, many left, halves."""
    yield lambda: 0.0
    yield lambda: 1.0
    for seed in range(seeds):
        dice = random.Random(seed)
        lean = dice.choice((0.2, 0.5, 0.8))
        yield (
            lambda dice=dice, lean=lean: (
                dice.random() if dice.random() < 0.2 else float(dice.random() < lean)
            )
        )
