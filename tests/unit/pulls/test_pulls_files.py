"""What a pull does with each file: the cheapest way in, space, repairs, and what does not fit."""

import os

import msgspec
import pytest

from gemmad.api.errors import PairMismatch, PullFailed, StoreBroken, WillNotFit
from gemmad.core import ModelName
from gemmad.pulls.space import require_space
from gemmad.sources.half import SourceFile, Stored
from gemmad.store.store import Store
from tests.fakes.faulty_disk import FaultyDisk
from tests.fakes.pull_scenes import (
    CHUNK,
    FOUND,
    FakeNetwork,
    entry,
    in_hand,
    local,
    make_pulls,
    plan,
    remote,
)

NAME = ModelName.parse("gemma4:e4b")
WEIGHTS = bytes(range(256)) * 160


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", chunk_bytes=CHUNK)


async def lines(pulls, made, name=NAME):
    return [status async for status in pulls.pull(name, "w", lambda: made)]


def finding(**changed):
    """An inspection that finds this."""

    async def look(_files):
        return msgspec.structs.replace(FOUND, **changed)

    return look


async def test_a_copy_elsewhere_is_taken_and_nothing_fetched(store, tmp_path):
    """Another program's file is linked after its hash was checked."""
    cached = tmp_path / "cache"
    cached.write_bytes(WEIGHTS)
    network = FakeNetwork(WEIGHTS)
    file = SourceFile(
        "target", "model.safetensors", entry(WEIGHTS), remote(WEIGHTS).bytes, (cached,)
    )
    await lines(make_pulls(store, network), plan(file))

    assert network.sent == []
    blob = store.blobs.check(entry(WEIGHTS))
    assert blob.read_bytes() == WEIGHTS


async def test_a_wrong_copy_elsewhere_is_passed_over(store, tmp_path):
    """Same name and size, other bytes: it is fetched."""
    cached = tmp_path / "cache"
    cached.write_bytes(bytes(len(WEIGHTS)))
    network = FakeNetwork(WEIGHTS)
    file = SourceFile(
        "target", "model.safetensors", entry(WEIGHTS), remote(WEIGHTS).bytes, (cached,)
    )
    await lines(make_pulls(store, network), plan(file))

    assert len(network.sent) == 10


async def test_a_directorys_file_is_not_linked(store, tmp_path):
    """Its owner may change it in place; ours must stay."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(WEIGHTS)
    await lines(make_pulls(store, FakeNetwork()), plan(local(path)))

    assert os.stat(path).st_nlink == 1
    path.write_bytes(b"changed")
    assert store.blobs.has(entry(WEIGHTS))


async def test_a_file_that_changed_under_the_pull_is_not_published(store, tmp_path):
    """The digest of the plan is what counts."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(WEIGHTS)
    made = plan(local(path))
    path.write_bytes(WEIGHTS[:-1] + b"\1")

    with pytest.raises(PullFailed, match=r"model.safetensors changed"):
        await lines(make_pulls(store, FakeNetwork()), made)
    assert store.all() == []


async def test_a_stored_file_that_is_gone_is_named(store):
    """Nothing can bring it back, and the message says so."""
    missing = SourceFile("target", "config.json", entry(b"{}"), Stored())

    with pytest.raises(PullFailed, match=r"config.json.*missing or damaged"):
        await lines(make_pulls(store, FakeNetwork()), plan(missing))


async def test_a_full_disk_is_told_before_the_first_byte(store, monkeypatch):
    """With what is needed and what is free, and without asking the network."""
    monkeypatch.setattr(Store, "free", lambda _self: 1000)
    network = FakeNetwork(WEIGHTS)

    with pytest.raises(WillNotFit, match=r"43522 bytes.*needed, 1000") as caught:
        await lines(make_pulls(store, network), plan(in_hand(b"{}"), remote(WEIGHTS)))
    assert caught.value.status == 507
    assert (network.sent, store.partials()) == ([], [])


async def test_what_is_here_needs_no_space(store, monkeypatch):
    """A model whose files are all stored is bound on a full disk too."""
    made = plan(in_hand(b"{}"), remote(WEIGHTS))
    await lines(make_pulls(store, FakeNetwork(WEIGHTS)), made)
    monkeypatch.setattr(Store, "free", lambda _self: 0)

    assert (await lines(make_pulls(store, FakeNetwork()), made))[-1].status == "success"


@pytest.mark.parametrize(("remaining", "free", "fits"), [
    (0, 0, True), (160, 170, True), (160, 169, False),
    (64 << 30, 65 << 30, True), (64 << 30, (65 << 30) - 1, False),
])  # fmt: skip
def test_a_reserve_is_left_free(remaining, free, fits):
    """A sixteenth, a gibibyte at most."""
    if fits:
        require_space(remaining, free)
    else:
        with pytest.raises(WillNotFit):
            require_space(remaining, free)


@pytest.mark.parametrize(("mode", "error"), [("enospc", WillNotFit), ("eio", PullFailed)])
async def test_a_failing_disk_is_an_answer(tmp_path, mode, error):
    """Wherever it fails: full is told apart from broken, and the next pull works."""
    made, failed = plan(in_hand(b"{}"), remote(WEIGHTS)), 0
    for fail_at in range(20, 90, 5):
        Store(tmp_path / str(fail_at))  # opened before: the pull fails, not the start
        disk = FaultyDisk(fail_at=fail_at, mode=mode)
        store = Store(tmp_path / str(fail_at), disk, chunk_bytes=CHUNK)
        pulls = make_pulls(store, FakeNetwork(WEIGHTS))
        try:
            await lines(pulls, made)
        except (error, StoreBroken):  # a read that fails is a damaged store
            failed += 1
        assert (await lines(pulls, made))[-1].status == "success"

    assert failed > 3


async def test_a_drafter_that_was_looked_for_and_misfits_is_left_out(store):
    """The target serves alone and says why."""
    pulls = make_pulls(
        store, FakeNetwork(), inspect=finding(drafter_mismatch="the vocabulary is 5 and 6.")
    )
    await lines(pulls, plan(in_hand(b"{}"), in_hand(b"[]", "drafter")))
    manifest = store.get(NAME)

    assert (manifest.drafter, manifest.drafter_parameter_size) == (None, None)
    assert manifest.notes == ("No drafter: the vocabulary is 5 and 6.",)


async def test_a_drafter_that_was_named_and_misfits_is_refused(store):
    """With both values, and the way without one for whoever asked; there is no name afterwards."""
    pulls = make_pulls(store, FakeNetwork(), inspect=finding(drafter_mismatch="it is 5 and 6."))

    with pytest.raises(PairMismatch, match=r"5 and 6.*`gemma pull --no-draft`.*`DRAFT none`"):
        await lines(pulls, plan(in_hand(b"{}"), in_hand(b"[]", "drafter"), draft="hf.co/a/b"))
    assert store.all() == []


async def test_parameters_that_nothing_uses_are_left_out_with_a_note(store):
    """A stranger's file must not make a model unusable; a plan's value wins over the file's."""
    pulls = make_pulls(store, FakeNetwork(), accepts=lambda name, _value: name != "odd")
    await lines(pulls, plan(in_hand(b"{}"), parameters={"odd": 1, "temperature": 0.9}))
    manifest = store.get(NAME)

    assert manifest.parameters == {"temperature": 0.9}
    assert "odd" in manifest.notes[0]


async def test_a_repair_binds_the_same_manifest(store):
    """Only what is missing is fetched, and nothing of the manifest changes."""
    network = FakeNetwork(WEIGHTS)
    pulls = make_pulls(store, network)
    made = plan(in_hand(b"{}"), remote(WEIGHTS), system="be kind")
    await lines(pulls, made)
    before = store.get(NAME)
    store.blobs.remove(entry(b"{}").digest)
    network.sent.clear()
    await lines(pulls, plan(in_hand(b"{}"), remote(WEIGHTS), manifest=before))

    assert (store.get(NAME), network.sent) == (before, [])
    assert store.blobs.has(entry(b"{}"))


async def test_a_bug_in_a_job_is_an_answer(store, caplog):
    """No follower waits for ever, and no details leave the log."""

    async def look(_files):
        raise ValueError("secret")

    with pytest.raises(PullFailed, match=r"ValueError\.") as caught:
        await lines(make_pulls(store, FakeNetwork(), inspect=look), plan(in_hand(b"{}")))
    assert "secret" not in str(caught.value)
    assert "secret" in caplog.text
