"""Pull jobs: shared, listed, cancelled, resumed, and never half done."""

import asyncio
import threading
import time

import pytest

from gemmad.api.errors import Busy, ModelNotFound, PullFailed
from gemmad.core import Manifest, ModelName
from gemmad.store.store import Store
from tests.fakes.pull_scenes import CHUNK, FakeNetwork, in_hand, make_pulls, plan, remote

NAME = ModelName.parse("gemma4:e4b")
WEIGHTS = bytes(range(256)) * 160  # ten chunks
FILES = plan(in_hand(b"{}"), remote(WEIGHTS), remote(b"draft" * 3000, "drafter"))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", chunk_bytes=CHUNK)


@pytest.fixture
def network():
    return FakeNetwork(WEIGHTS, b"draft" * 3000)


@pytest.fixture
async def pulls(store, network):
    made = make_pulls(store, network, grace_s=0.05)
    yield made
    await made.close()


def follow(pulls, wanted="w", name=NAME, **how):
    return pulls.pull(name, wanted, lambda: FILES, **how)


async def lines(followed):
    return [status async for status in followed]


async def begun(pulls, network, **how):
    """A follower of a pull that stands still after three chunks, and the task that follows."""
    network.stop_after = 3
    task = asyncio.create_task(lines(follow(pulls, **how)))
    await network.waits.wait()
    return task


async def left(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def gone(pulls):
    async with asyncio.timeout(5):
        while pulls.jobs():  # noqa: ASYNC110  (there is nothing to await: that is the point)
            await asyncio.sleep(0.01)


async def test_a_pull_tells_ollamas_story_for_both_halves(pulls, store):
    """Manifest, files of target and drafter with totals, verification, success."""
    told = await lines(follow(pulls))

    words = [status.status for status in told]
    assert words[0] == "pulling manifest"
    assert words[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    assert {status.kind for status in told if status.digest} == {"target", "drafter"}
    for status in told:
        if status.digest:
            assert status.status == f"pulling {status.digest[7:19]}"
    assert isinstance(store.get(NAME), Manifest)
    assert store.get(NAME).drafter_parameter_size == "50"


async def test_two_clients_share_one_pull(pulls, network):
    """Every chunk is fetched once and both hear it to the end."""
    first, second = await asyncio.gather(lines(follow(pulls)), lines(follow(pulls)))

    assert len(network.sent) == len(set(network.sent))
    assert first[-1].status == second[-1].status == "success"


async def test_a_second_pull_fetches_nothing(pulls, network):
    """What is in the store is told as complete."""
    await lines(follow(pulls))
    network.sent.clear()
    again = await lines(follow(pulls))

    assert network.sent == []
    assert all(status.completed == status.total for status in again if status.digest)


async def test_the_last_client_that_leaves_ends_the_pull_after_the_grace(pulls, network, store):
    """What came is kept, and the next pull goes on there."""
    await left(await begun(pulls, network))
    assert [job.clients for job in pulls.jobs()] == [0]
    await gone(pulls)
    (partial,) = store.partials()
    assert partial.completed == 3 * CHUNK

    network.stop_after = None
    network.gate.set()
    told = await lines(follow(pulls))

    weights = [s.completed for s in told if s.total == len(WEIGHTS)]
    assert weights[0] == 3 * CHUNK
    assert weights == sorted(weights)
    assert {s.resumed for s in told if s.total == len(WEIGHTS)} == {3 * CHUNK}
    assert len(network.sent) == len(set(network.sent))


async def test_only_what_was_here_before_is_told_as_resumed(pulls):
    """All of a file the store has, and nothing of one that is fetched or in hand."""
    first = await lines(follow(pulls))
    again = await lines(follow(pulls))

    assert {status.resumed for status in first} == {None}
    assert all(status.resumed == status.total for status in again if status.digest)


async def test_a_client_that_returns_within_the_grace_finds_its_pull(pulls, network):
    """Nothing is cancelled under it."""
    await left(await begun(pulls, network))
    back = asyncio.create_task(lines(follow(pulls)))
    await asyncio.sleep(0.1)
    assert len(pulls.jobs()) == 1
    network.stop_after = None
    network.gate.set()

    assert (await back)[-1].status == "success"


async def test_a_detached_pull_goes_on_alone(pulls, network, store):
    """Its client left long ago."""
    await left(await begun(pulls, network, detach=True))
    await asyncio.sleep(0.1)
    assert pulls.jobs()[0].detached
    network.stop_after = None
    network.gate.set()
    await gone(pulls)

    assert store.get(NAME).name == str(NAME)


async def test_one_of_two_clients_leaves_and_the_other_finishes(pulls, network):
    """A leaving client takes nothing from those who stay."""
    leaving = await begun(pulls, network)
    staying = asyncio.create_task(lines(follow(pulls)))
    await asyncio.sleep(0)
    await left(leaving)
    await asyncio.sleep(0.1)
    assert pulls.jobs()[0].clients == 1
    network.stop_after = None
    network.gate.set()

    assert (await staying)[-1].status == "success"


async def test_a_cancelled_pull_tells_its_clients(pulls, network, store):
    """All of them, at once; what came stays."""
    task = await begun(pulls, network)
    facts = pulls.jobs()[0]
    assert (facts.name, facts.state, facts.clients) == (str(NAME), "pulling", 1)
    assert facts.completed == 3 * CHUNK + len(b"{}")
    pulls.cancel(NAME)

    with pytest.raises(PullFailed, match="cancelled"):
        await task
    await gone(pulls)
    assert [partial.completed for partial in store.partials()] == [3 * CHUNK]
    with pytest.raises(ModelNotFound, match="not being pulled"):
        pulls.cancel(NAME)


async def test_a_pull_cancelled_before_its_first_step_answers(pulls):
    """Nobody waits for ever."""
    followed = follow(pulls)
    pulls.cancel(NAME)

    with pytest.raises(PullFailed, match="cancelled"):
        await lines(followed)


async def test_a_pull_cancelled_while_the_hub_is_silent_answers_at_once(pulls):
    """The thread that asks is left behind, and holds neither the answer nor the program's end."""
    asked, answer, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def silent():
        loop.call_soon_threadsafe(asked.set)
        answer.wait(20)
        return FILES

    task = asyncio.create_task(lines(pulls.pull(NAME, "w", silent)))
    await asked.wait()
    (asking,) = [t for t in threading.enumerate() if t.name == "compose a plan"]
    began = time.monotonic()
    pulls.cancel(NAME)
    with pytest.raises(PullFailed, match="cancelled"):
        await task
    took = time.monotonic() - began
    answer.set()

    assert asking.daemon
    assert took < 0.5
    assert pulls.jobs() == []


async def test_another_wish_for_a_name_that_is_pulled_is_busy(pulls, network):
    """One name cannot become two things."""
    task = await begun(pulls, network)
    with pytest.raises(Busy, match="other settings"):
        follow(pulls, wanted="another")
    await left(task)


async def test_closing_ends_a_pull_and_leaves_no_name(pulls, network, store):
    """The follower is told; nothing half done is listed."""
    task = await begun(pulls, network)
    await pulls.close()

    with pytest.raises(PullFailed, match="stopped"):
        await task
    assert store.all() == []


async def test_pulls_of_different_names_run_side_by_side(store):
    """Neither waits for the other."""
    network = FakeNetwork(b"a" * CHUNK, b"b" * CHUNK)
    network.gate.clear()
    pulls = make_pulls(store, network)
    both = [
        asyncio.create_task(lines(pulls.pull(ModelName.parse(n), n, lambda d=d: plan(remote(d)))))
        for n, d in (("one", b"a" * CHUNK), ("two", b"b" * CHUNK))
    ]
    async with asyncio.timeout(5):
        while len(network.running) < 2:  # noqa: ASYNC110  (the fakes know no events)
            await asyncio.sleep(0.01)
    network.gate.set()
    await asyncio.gather(*both)

    assert network.together == 2


async def test_a_file_that_two_names_share_is_fetched_once(store):
    """The second waits for the first one's copy."""
    network = FakeNetwork(WEIGHTS)
    pulls = make_pulls(store, network)
    names = [ModelName.parse("one"), ModelName.parse("two")]
    await asyncio.gather(
        *(lines(pulls.pull(name, 1, lambda: plan(remote(WEIGHTS)))) for name in names)
    )

    assert len(network.sent) == 10
    assert store.get(names[0]).target == store.get(names[1]).target
