"""Small pairs for store tests, and the invariants every store must keep."""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

from gemmad.api.errors import GemmaError
from gemmad.core import (
    ByteCount,
    Details,
    Digest,
    FileEntry,
    Manifest,
    ModelName,
    Origin,
    digest_of,
)
from gemmad.store.store import Broken, Store
from tests.fakes.faulty_disk import UnsyncedDisk

DETAILS = Details(
    family="gemma4",
    parameter_size="1K",
    quantization_level="BF16",
    context_length=8192,
    embedding_length=256,
    capabilities=("completion", "tools", "thinking"),
)


def entry(data: bytes) -> FileEntry:
    """The entry of a file with this content."""
    return FileEntry(digest_of(data), ByteCount(len(data)))


def manifest(name: str, files: Mapping[str, bytes], drafter: Mapping[str, bytes] = {}) -> Manifest:
    """A manifest of these files."""
    target = {file: entry(data) for file, data in files.items()}
    return Manifest(
        name=str(ModelName.parse(name)),
        created="2026-01-01T00:00:00Z",
        target=target,
        drafter={file: entry(data) for file, data in drafter.items()} or None,
        tokenizer=Digest("sha256:" + "0" * 64),
        origin=Origin("test", "1"),
        details=DETAILS,
    )


def put(store: Store, name: str, *contents: bytes) -> None:
    """A pair of files with these contents is in the store under `name`."""
    files = {f"f{number}.json": data for number, data in enumerate(contents)}
    wanted = manifest(name, files)
    with store.pin(wanted.digests):
        for data in contents:
            store.blobs.add(entry(data), [data[:3], data[3:]])
        store.commit(wanted)


def apply(store: Store, step: tuple) -> None:
    """One step of a script: ("put", name, *contents), ("copy", a, b) or ("delete", name)."""
    action, name, *rest = step
    if action == "put":
        put(store, name, *rest)
    elif action == "copy":
        store.copy(ModelName.parse(name), ModelName.parse(rest[0]))
    else:
        store.delete(ModelName.parse(name))


def run_script(store: Store, steps: list[tuple]) -> list[tuple]:
    """All steps, errors of the tree and of the disk passed over; the steps that succeeded."""
    done = []
    for step in steps:
        with contextlib.suppress(GemmaError, OSError):
            apply(store, step)
            done.append(step)
    return done


def names(store: Store) -> set[str]:
    """The readable names of a store."""
    return {m.name for m in store.all() if isinstance(m, Manifest)}


def check_invariants(root: Path) -> set[str]:
    """I1 and I2 hold in a store opened afresh; returns its names."""
    store = Store(root, UnsyncedDisk())
    for path in (root / "blobs").rglob("*"):
        if path.is_file():  # I1
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for found in store.all():  # I2
        assert not isinstance(found, Broken), found
        for file in found.files:
            store.blobs.check(file)
    return names(store)
