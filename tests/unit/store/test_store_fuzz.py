"""Any bytes where a manifest should be: it is a sound name or a broken one, and harms no other."""

import gc
import json
import random
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemmad.api.errors import StoreBroken
from gemmad.core import Manifest, ModelName, encode_manifest
from gemmad.store.manifests import MAX_MANIFEST_BYTES
from gemmad.store.store import Broken, Store
from tests.fakes.faulty_disk import UnsyncedDisk
from tests.fakes.store_scenes import manifest, put
from tests.unit.store.forged_manifests import forged

MOST_S, MOST_BYTES = 1.0, 64 << 20
A, B = ModelName.parse("a"), ModelName.parse("b")
GOOD = encode_manifest(manifest("a", {"f.json": b"alpha"}, {"d.json": b"beta"}))
NOBODYS = ModelName.parse("fuzz/name")


def inputs(number: int, seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    return (forged(GOOD, dice) for _ in range(number))


def feed(store: Store, data: bytes) -> bool:
    """The bytes are the manifest of `a`; whether they were believed."""
    path = store._paths.manifest(A)
    path.write_bytes(data)
    begun = time.perf_counter()
    try:
        found: Manifest | None = store.get(A)
    except StoreBroken:
        found = None
    assert time.perf_counter() - begun < MOST_S
    if found is not None:
        assert ModelName.parse(found.name).key == A
        assert {*store.missing(found.files)} <= {*found.files}
    return found is not None


def fuzz(tmp_path: Path, number: int, seed: int) -> int:
    """So many manifests; how many were believed."""
    store = Store(tmp_path / "store", UnsyncedDisk())
    put(store, "b", b"beta")
    put(store, "a", b"alpha")
    believed = 0
    for count, data in enumerate(inputs(number, seed)):
        believed += feed(store, data)
        if count % 100 == 0:
            names = {str(found.name): found for found in store.all()}
            assert names.keys() == {"a:latest", "b:latest"}
            assert isinstance(names["b:latest"], Manifest)
    return believed


def test_five_hundred_forged_manifests_harm_nothing(tmp_path: Path) -> None:
    """Flipped, cut, grown, nested, of wrong types, with hostile names: some are sound, most not."""
    assert 0 < fuzz(tmp_path, 500, seed=1) < 500


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_thousand_forged_manifests_harm_nothing(tmp_path: Path) -> None:
    """And the memory of the process does not grow with them."""
    fuzz(tmp_path, 500, seed=2)
    gc.collect()
    tracemalloc.start()
    try:
        believed = fuzz(tmp_path, 50_000, seed=3)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(believed, now, peak)
    assert peak < MOST_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 500_000,
        b'{"sha256":' * 200_000,
        b'{"sha256":"' + b"0" * 64 + b'","manifest":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"sha256":"x","manifest":' + b"9" * 1_000_000 + b"}",
        b"\xff" * (MAX_MANIFEST_BYTES + 1),
        json.dumps({"sha256": "x" * 3_000_000, "manifest": {}}).encode(),
    ],
    ids=["nested", "nested objects", "nested manifest", "number", "huge", "long hash"],
)
def test_bombs_are_broken_names_at_once(tmp_path: Path, data: bytes) -> None:
    """Depth and length cost neither time nor memory."""
    store = Store(tmp_path / "store", UnsyncedDisk())
    put(store, "a", b"alpha")
    tracemalloc.start()
    assert not feed(store, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES
    assert [type(found) for found in store.all()] == [Broken]
