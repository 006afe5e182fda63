"""Names: linked last, unlinked first, and one broken name harms no other."""

from pathlib import Path

import pytest

from gemmad.api.errors import ModelNotFound, StoreBroken
from gemmad.core import Manifest, ModelName
from gemmad.store.store import Broken, Store
from tests.fakes.store_scenes import manifest, names, put

A, B = ModelName.parse("a"), ModelName.parse("b")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    put(store, "a", b"alpha", b"shared")
    put(store, "b", b"beta", b"shared")
    return store


def blobs(store):
    return sorted(p.read_bytes() for p in store._paths.blobs.rglob("*") if p.is_file())


def test_a_name_is_found_whatever_its_case(store):
    """`A` and `a:Latest` are the model `a`."""
    assert store.get(ModelName.parse("A:Latest")).name == "a:latest"


def test_a_name_without_its_blobs_is_not_committed(store):
    """A manifest implies that all its blobs are there (I2)."""
    with pytest.raises(StoreBroken):
        store.commit(manifest("x", {"f.json": b"never stored"}))

    assert names(store) == {"a:latest", "b:latest"}


def test_deleting_a_name_removes_only_what_no_other_name_needs(store):
    """The shared blob stays until the last name that binds it goes."""
    store.delete(A)
    assert blobs(store) == [b"beta", b"shared"]

    store.delete(B)
    assert blobs(store) == []
    assert store.all() == []


def test_deleting_spares_what_a_pull_has_pinned(store):
    """A pull that found a blob present can still commit after another name was deleted."""
    wanted = manifest("c", {"f.json": b"alpha"})
    with store.pin(wanted.digests):
        store.delete(A)
        store.commit(wanted)

    assert names(store) == {"b:latest", "c:latest"}


def test_a_copy_shares_every_blob_and_is_the_same_pair(store):
    """Copies have one id and cost no disk."""
    before = blobs(store)
    store.copy(A, ModelName.parse("team/copy:v2"))

    copied = store.get(ModelName.parse("team/copy:v2"))
    assert blobs(store) == before
    assert copied.id == store.get(A).id
    assert copied.name == "team/copy:v2"


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"[1]", b'{"sha256":"x","manifest":{}}'])
def test_a_damaged_manifest_is_listed_as_broken_and_harms_no_other(store, damage):
    """The other names are listed and read as before; nothing is deleted for its sake."""
    store._paths.manifest(A).write_bytes(damage)

    found = store.all()
    assert [e.name for e in found if isinstance(e, Broken)] == [A]
    assert [e.name for e in found if isinstance(e, Manifest)] == ["b:latest"]
    with pytest.raises(StoreBroken, match="gemma pull a"):
        store.get(A)


def test_every_flipped_bit_of_a_manifest_is_noticed(store):
    """A manifest is believed only when it matches its own hash."""
    path = store._paths.manifest(A)
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        with pytest.raises(StoreBroken):
            store.get(A)


def test_while_a_name_is_broken_no_blob_is_deleted(store):
    """What it binds is unknown; removing a blob could make it unrepairable."""
    store._paths.manifest(A).write_bytes(b"")
    store.delete(B)

    assert blobs(store) == [b"alpha", b"beta", b"shared"]


def test_a_broken_name_can_be_deleted_and_pulled_again(store):
    """Both ways out of a damaged manifest work."""
    store._paths.manifest(A).write_bytes(b"")
    store._paths.manifest(B).write_bytes(b"")

    store.delete(A)
    put(store, "b", b"beta", b"shared")

    assert names(store) == {"b:latest"}


def test_a_manifest_moved_to_another_name_is_broken(store):
    """A name is what its manifest says, not where a file was put."""
    store._paths.manifest(ModelName.parse("x")).parent.mkdir()
    store._paths.manifest(A).rename(store._paths.manifest(ModelName.parse("x")))

    with pytest.raises(StoreBroken, match="the one of"):
        store.get(ModelName.parse("x"))


def test_unknown_names_are_not_found(store):
    """The error names the model and the way to get it."""
    for action in (store.get, lambda name: store.copy(name, A)):
        with pytest.raises(ModelNotFound, match="gemma pull nope"):
            action(ModelName.parse("nope"))


def test_who_removes_an_unknown_name_is_not_told_to_pull_it(store):
    """What he wanted gone is not there; perhaps he wrote it wrongly."""
    with pytest.raises(ModelNotFound, match=r"nope' not found. See what is there with: gemma list"):
        store.delete(ModelName.parse("nope"))


def test_opening_a_store_full_of_junk_deletes_nothing(store, tmp_path):
    """Start-up leaves every file as it is."""
    for place in ("ingest/x.part", "blobs/sha256/zz", "manifests/junk", "manifests/a/x.txt"):
        (store._paths.root / place).write_bytes(b"junk")
    before = sorted(p for p in store._paths.root.rglob("*"))

    reopened = Store(store._paths.root)

    assert names(reopened) == {"a:latest", "b:latest"}
    assert sorted(p for p in store._paths.root.rglob("*")) == before


def test_pair_files_point_at_the_blobs(store):
    """The runner gets paths of whole files under the names the repository gave them."""
    files = store.pair_files(store.get(A))

    assert {name: Path(path).read_bytes() for name, path in files.target.items()} == {
        "f0.json": b"alpha",
        "f1.json": b"shared",
    }
    assert files.drafter is None
