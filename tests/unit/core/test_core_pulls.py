"""Pull jobs: shared, seen by all, and never half done."""

import asyncio
import threading

import pytest

from gemmad.api.errors import ModelNotFound, PullFailed, WillNotFit
from gemmad.core import ModelName
from gemmad.pulls import Pulls
from gemmad.sources.builtin import BuiltinSource
from gemmad.store.store import Store
from tests.fakes.builtin_pair import write_pair
from tests.fakes.faulty_disk import FaultyDisk

NANO = ModelName.parse("nano")


class CountingSource(BuiltinSource):
    """Counts opened files, waits at a gate, and may lie about one file's content."""

    def __init__(self, directory):
        super().__init__(directory)
        self.opened: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def open(self, plan, file):
        self.gate.wait(10)
        self.opened.append(f"{file.kind}/{file.name}")
        return super().open(plan, file)


@pytest.fixture
def source(tmp_path):
    return CountingSource(write_pair(tmp_path / "nano"))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


async def lines(pulls):
    return [status async for status in pulls.pull(NANO)]


async def test_a_pull_tells_ollamas_story_for_both_halves(source, store):
    """Manifest, files of target and drafter with totals, verification, success."""
    told = await lines(Pulls(store, [source]))

    words = [status.status for status in told]
    assert words[0] == "pulling manifest"
    assert words[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    assert {status.kind for status in told if status.digest} == {"target", "drafter", "document"}
    for status in told:
        if status.digest and status.completed:
            assert status.status == f"pulling {status.digest[7:19]}"
            assert status.completed == status.total
    assert store.get(NANO).drafter is not None


async def test_two_clients_share_one_pull(source, store):
    """Files are opened once and both hear every line to the end."""
    source.gate.clear()
    pulls = Pulls(store, [source])
    both = asyncio.gather(lines(pulls), lines(pulls))
    await asyncio.sleep(0)
    source.gate.set()
    first, second = await both

    assert len(source.opened) == len(set(source.opened))
    assert first[-1].status == second[-1].status == "success"


async def test_a_second_pull_copies_nothing(source, store):
    """What is in the store is told as complete."""
    pulls = Pulls(store, [source])
    await lines(pulls)
    source.opened.clear()
    again = await lines(pulls)

    assert source.opened == []
    assert again[-1].status == "success"


async def test_a_client_that_leaves_does_not_end_the_pull(source, store):
    """The job goes on and a later client joins or finds it done."""
    source.gate.clear()
    pulls = Pulls(store, [source])
    follower = pulls.pull(NANO)
    await anext(follower)
    await follower.aclose()
    source.gate.set()

    assert (await lines(pulls))[-1].status == "success"


async def test_closing_ends_a_pull_and_leaves_no_name(source, store):
    """The follower is told; nothing half done is listed."""
    source.gate.clear()
    pulls = Pulls(store, [source])
    follower = asyncio.create_task(lines(pulls))
    await asyncio.sleep(0)
    closing = asyncio.create_task(pulls.close())
    source.gate.set()
    await closing

    with pytest.raises(PullFailed, match="stopped"):
        await follower
    assert store.all() == []


async def test_an_unknown_name_says_what_can_be_pulled(source, store):
    """Before anything starts, as a plain not-found."""
    with pytest.raises(ModelNotFound, match="gemma pull nano"):
        Pulls(store, [source]).pull(ModelName.parse("gemma4:e4b"))


async def test_a_file_that_changed_under_the_pull_is_not_published(source, store, tmp_path):
    """The digest of the plan is what counts."""
    weights = tmp_path / "nano" / "target" / "model.safetensors"
    plan = source.plan(NANO)
    source.plan = lambda name: plan
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")

    with pytest.raises(PullFailed):
        await lines(Pulls(store, [source]))
    assert store.all() == []


async def test_an_installation_without_the_pair_says_so(store, tmp_path):
    """Which file is missing, and what to do."""
    with pytest.raises(PullFailed, match="Install"):
        await lines(Pulls(store, [BuiltinSource(tmp_path / "nothing")]))


@pytest.mark.parametrize(("mode", "error"), [("enospc", WillNotFit), ("eio", PullFailed)])
async def test_a_failing_disk_is_an_answer(source, tmp_path, mode, error):
    """Full is told apart from broken, and the next pull works."""
    store = Store(tmp_path / "store", FaultyDisk(fail_at=9, mode=mode))
    pulls = Pulls(store, [source])
    with pytest.raises(error):
        await lines(pulls)

    assert (await lines(pulls))[-1].status == "success"
