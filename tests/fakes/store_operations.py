"""Everything a store does to a disk, as scenes that can be cut off anywhere and done again."""

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemmad.api.errors import GemmaError
from gemmad.core import FileEntry, Manifest, ModelName
from gemmad.store.disk import Disk
from gemmad.store.partial import DigestMismatch, Partial
from gemmad.store.store import Broken, Store
from tests.fakes.faulty_disk import UnsyncedDisk
from tests.fakes.store_scenes import entry, manifest, put

CHUNK = 64
DATA = bytes(range(256)) + b"the end of a file of five chunks"
WRONG = b"!" + DATA[1:]
ENTRY = entry(DATA)
KEPT = {"keep:latest": (b"kept", b"shared")}  # a name no operation touches


def open_store(root: Path, disk: Disk | None = None) -> Store:
    """The store of a scene; nothing in it is too young to be collected."""
    return Store(root, disk or UnsyncedDisk(), chunk_bytes=CHUNK, clock=lambda: 4e9)


def chunks_of(data: bytes) -> list[bytes]:
    return [data[begin : begin + CHUNK] for begin in range(0, len(data), CHUNK)]


def arrive(partial: Partial, chunk: int, data: bytes = DATA) -> None:
    """One chunk comes in two pieces."""
    piece = chunks_of(data)[chunk]
    partial.write(chunk * CHUNK, piece[:9])
    partial.keep(chunk, 9, zlib.crc32(piece[:9]))
    partial.write(chunk * CHUNK + 9, piece[9:])
    partial.finish(chunk, zlib.crc32(piece))


class Act:
    """One attempt at an operation; `arrived` are the chunks it was told are kept."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store = store
        self.beside = root.parent
        self.arrived: set[int] = set()

    def pull(self) -> None:
        """All that is missing comes, and the blob is published; a mismatch is mended."""
        if self.store.blobs.has(ENTRY):
            return
        with self.store.partial(ENTRY) as partial:
            for chunk in partial.missing():
                arrive(partial, chunk)
                self.arrived.add(chunk)
                partial.digest_ahead()
            partial.sync_ahead()
            try:
                partial.commit()
            except DigestMismatch:
                partial.reopen(0)
                arrive(partial, 0)
                partial.commit()

    def upload(self) -> None:
        ingest = self.store.receive(ENTRY.digest)
        try:
            for piece in chunks_of(DATA):
                ingest.write(piece)
            ingest.commit()
        except (GemmaError, OSError):
            ingest.abort()
            raise

    def adopt(self, *, link: bool) -> None:
        if not self.store.adopt(ENTRY, self.beside / "theirs", link=link):
            raise OSError("the other program's file could not be read")

    def verify(self) -> None:
        list(self.store.verify())

    def delete(self, name: str) -> None:
        model = ModelName.parse(name)
        if any(_name(found) == str(model) for found in self.store.all()):
            self.store.delete(model)


def _name(found: Manifest | Broken) -> str:
    return str(found.name)


@dataclass(frozen=True, slots=True)
class Operation:
    """What was there, what is done, and what holds when it was done."""

    act: Callable[[Act], None]
    before: Callable[[Path], None] = lambda _: None
    after: Callable[[Store], bool] = lambda _: True
    names: tuple[str, ...] = ()  # in the end, beside KEPT
    reflinks: bool = False
    chunks: tuple[int, ...] = ()  # whole on the disk before
    damaged: FileEntry | None = None  # a blob that is not what it says, before


def has(store: Store) -> bool:
    return store.blobs.has(ENTRY)


def half_pulled(root: Path) -> None:
    with open_store(root).partial(ENTRY) as partial:
        for chunk in (0, 2, 3):
            arrive(partial, chunk)


def wrongly_pulled(root: Path) -> None:
    with open_store(root).partial(ENTRY) as partial:
        for chunk in range(partial.chunks - 1):
            arrive(partial, chunk, WRONG)


def theirs(root: Path) -> None:
    (root.parent / "theirs").write_bytes(DATA)


def published(root: Path) -> None:
    open_store(root).blobs.add(ENTRY, [DATA])


def three_names(root: Path) -> None:
    store = open_store(root)
    put(store, "a", b"alpha", b"shared")
    put(store, "ns/b:x", b"beta", b"shared")
    put(store, "c", b"gamma", b"shared")


def garbage(root: Path) -> None:
    published(root)
    store = open_store(root)
    for data in (b"unbound", b"unbound too", b"bad once"):
        store.blobs.add(entry(data), [data])
    store.blobs.quarantine(entry(b"bad once").digest)


def rotten(root: Path) -> None:
    three_names(root)
    _overwrite(open_store(root).blobs.check(entry(b"alpha")), b"alphA")


def touched(root: Path) -> None:
    published(root)
    os.utime(open_store(root).blobs.check(ENTRY))


def first_format(root: Path) -> None:
    """As the first version left it: no FORMAT, three rooms."""
    three_names(root)
    (root / "FORMAT").unlink()
    for room in ("shared", "quarantine"):
        (root / room).rmdir()


def _overwrite(path: Path, data: bytes) -> None:
    times = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    path.chmod(0o444)


def _commit(act: Act) -> None:
    act.store.commit(manifest("new/name:tag", {"f.json": DATA}))


def _replace(act: Act) -> None:
    put(act.store, "a", b"alpha two", b"shared")


def _copy(act: Act) -> None:
    act.store.copy(ModelName.parse("a"), ModelName.parse("team/copy:v2"))


def _garbage_is_gone(store: Store) -> bool:
    return not store.gc(dry_run=True, min_age_s=0).blobs


OPERATIONS = {
    "download": Operation(Act.pull, after=has),
    "resume": Operation(Act.pull, half_pulled, has, chunks=(0, 2, 3)),
    "mend": Operation(Act.pull, wrongly_pulled, has),
    "add": Operation(lambda act: act.store.blobs.add(ENTRY, chunks_of(DATA)), after=has),
    "upload": Operation(Act.upload, after=has),
    "adopt by reflink": Operation(lambda act: act.adopt(link=True), theirs, has, reflinks=True),
    "adopt by link": Operation(lambda act: act.adopt(link=True), theirs, has),
    "adopt by copy": Operation(lambda act: act.adopt(link=False), theirs, has),
    "commit": Operation(_commit, published, names=("new/name:tag",)),
    "replace": Operation(_replace, three_names, names=("a:latest", "ns/b:x", "c:latest")),
    "copy": Operation(
        _copy, three_names, names=("a:latest", "ns/b:x", "c:latest", "team/copy:v2")
    ),
    "rm": Operation(lambda act: act.delete("ns/b:x"), three_names, names=("a:latest", "c:latest")),
    "rm shared": Operation(
        lambda act: act.delete("c"), three_names, names=("a:latest", "ns/b:x")
    ),
    "gc": Operation(
        lambda act: act.store.gc(dry_run=False, min_age_s=0), garbage, _garbage_is_gone
    ),
    "rm partials": Operation(
        lambda act: act.store.remove_partials(), half_pulled, lambda store: not store.partials()
    ),
    "verify": Operation(
        Act.verify, rotten, lambda s: not s.blobs.has(entry(b"alpha")),
        names=("ns/b:x", "c:latest"), damaged=entry(b"alpha"),
    ),
    "check a touched blob": Operation(lambda act: act.store.blobs.check(ENTRY), touched, has),
    "migrate": Operation(
        lambda act: act.store.all(), first_format, names=("a:latest", "ns/b:x", "c:latest")
    ),
}  # fmt: skip


def begin(operation: Operation, root: Path) -> None:
    """The scene before the operation."""
    store = open_store(root)
    for name, contents in KEPT.items():
        put(store, name, *contents)
    operation.before(root)


def listed(root: Path) -> dict[str, Manifest | Broken]:
    """The names of the store opened afresh."""
    return {_name(found): found for found in open_store(root).all()}


def check_whole(operation: Operation, root: Path, before: set[str]) -> None:
    """I1, I2 and I3, whatever happened; nothing outside of the store was changed."""
    bad = operation.damaged
    for path in (root / "blobs").rglob("*"):
        if path.is_file() and (bad is None or f"sha256:{path.name}" != bad.digest):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
    found = listed(root)
    store = open_store(root)
    for name, each in found.items():
        if isinstance(each, Broken):
            assert bad is not None, each
            continue
        for file in each.files:
            if bad is None or file.digest != bad.digest:
                store.blobs.check(file)
        assert name == each.name
    assert before - found.keys() <= before - {*operation.names} - {*KEPT}
    assert {*KEPT} <= found.keys() <= before | {*operation.names}
    if (other := root.parent / "theirs").exists():
        assert other.read_bytes() == DATA


def check_done(operation: Operation, root: Path) -> None:
    """What the operation is for holds."""
    found = listed(root)
    sound = {name for name, each in found.items() if isinstance(each, Manifest)}
    assert sound == {*KEPT, *operation.names}
    assert operation.after(open_store(root))
