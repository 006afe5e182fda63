"""Residency with runners in this process: leases, sharing, crashes, the end."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from gemmad import wire
from gemmad.api.errors import LoadFailed, RunnerCrashed
from gemmad.core import ModelName
from gemmad.residency.depths import DepthStates
from gemmad.residency.loop import Limits, Residency
from tests.fakes.residency_fakes import InProcessRunner, wanted


class Starter:
    """Starts in-process runners and keeps them; `gate` holds loads back, `error` fails them."""

    def __init__(self) -> None:
        self.runners: list[InProcessRunner] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, load, *, name, on_progress):
        self.called.set()
        on_progress(wire.Progress(phase="target", done=1, total=2))
        await self.gate.wait()
        if self.error:
            raise self.error
        self.runners.append(InProcessRunner(load, name))
        return self.runners[-1]


@asynccontextmanager
async def residency(tmp_path, starter, **limits):
    depths = DepthStates(tmp_path / "depths.json")

    def prepare(want):
        files = wire.PairFiles(target={})
        return wire.Load(files=files, num_ctx=want.num_ctx, depth_state=depths.known(want.manifest))

    running = Residency(starter, prepare, depths, Limits(**limits))
    running.start()
    try:
        yield running
    finally:
        await running.close()


async def test_concurrent_requests_share_one_runner(tmp_path):
    """Ten leases at once start one process."""
    starter = Starter()
    async with residency(tmp_path, starter) as running:

        async def use():
            async with running.lease(wanted("a"), None) as lease:
                return lease.num_ctx

        assert await asyncio.gather(*(use() for _ in range(10))) == [4096] * 10
    assert len(starter.runners) == 1


async def test_an_answer_teaches_the_next_load_its_depths(tmp_path):
    """What the controller said last is handed to the next runner, also after a restart."""
    starter = Starter()
    async with residency(tmp_path, starter) as running:
        async with running.lease(wanted("a"), None) as lease:
            request = wire.Generate(id=7, messages=(wire.Message(role="user", content="hi"),))
            words = [event async for event in lease.generate(request)]
        assert isinstance(words[-1], wire.Done)
    async with (
        residency(tmp_path, starter) as running,
        running.lease(wanted("a"), None),
    ):
        pass

    assert starter.runners[1].load.depth_state == {"seen": 7}


async def test_leaving_an_answer_cancels_it_in_the_runner(tmp_path):
    """Closing the lease's generator reaches the runner's."""
    starter = Starter()
    async with residency(tmp_path, starter) as running:
        async with running.lease(wanted("a"), None) as lease:
            request = wire.Generate(id=7, messages=(wire.Message(role="user", content="hi"),))
            answer = lease.generate(request)
            await anext(answer)
            await answer.aclose()

        assert starter.runners[0].cancelled == [7]


async def test_unload_returns_when_the_runner_is_gone(tmp_path):
    """Nothing is resident afterwards; unloading what is not loaded is no error."""
    starter = Starter()
    async with residency(tmp_path, starter) as running:
        async with running.lease(wanted("a"), None):
            pass
        await running.unload(ModelName.parse("A"))
        await running.unload(ModelName.parse("a"))

        assert running.residents() == ()
        assert starter.runners[0].closed.done()


async def test_unload_ends_a_load_that_hangs(tmp_path):
    """No runner is left and the request that waited is told."""
    starter = Starter()
    starter.gate.clear()
    async with residency(tmp_path, starter) as running:

        async def use():
            async with running.lease(wanted("a"), None):
                raise AssertionError("it was never loaded")

        waiting = asyncio.create_task(use())
        await starter.called.wait()
        await running.unload(ModelName.parse("a"))

        with pytest.raises(Exception, match="stopped while loading"):
            await waiting
        assert running.residents() == ()


async def test_a_crash_between_requests_gives_the_next_a_fresh_runner(tmp_path):
    """The dead one is forgotten by itself."""
    starter = Starter()
    async with residency(tmp_path, starter) as running:
        async with running.lease(wanted("a"), None):
            pass
        starter.runners[0].crash()
        async with running.lease(wanted("a"), None):
            pass

    assert len(starter.runners) == 2


@pytest.mark.parametrize("error", [LoadFailed("no room"), RunnerCrashed("boom")])
async def test_a_load_error_reaches_the_request(tmp_path, error):
    """With its own class and words."""
    starter = Starter()
    starter.error = error
    async with residency(tmp_path, starter) as running:
        with pytest.raises(type(error), match=error.message):
            async with running.lease(wanted("a"), None):
                pass


async def test_a_bug_in_starting_a_runner_is_an_answer_too(tmp_path):
    """A request never hangs because of an unforeseen exception."""
    starter = Starter()
    starter.error = ValueError("unforeseen")
    async with residency(tmp_path, starter) as running:
        with pytest.raises(LoadFailed, match="unforeseen"):
            async with running.lease(wanted("a"), None):
                pass


async def test_a_request_cancelled_while_it_waits_holds_nothing(tmp_path):
    """The load goes on, ends idle and can be used by the next."""
    starter = Starter()
    starter.gate.clear()
    async with residency(tmp_path, starter) as running:

        async def use():
            async with running.lease(wanted("a"), None):
                pass

        gone = asyncio.create_task(use())
        await starter.called.wait()
        gone.cancel()
        starter.gate.set()
        await use()
        await running.unload(ModelName.parse("a"))  # would wait ten seconds for a lost lease

        assert len(starter.runners) == 1


async def test_keep_alive_zero_leaves_no_runner(tmp_path):
    """It is stopped as soon as the request ends, and unload waits for that."""
    starter = Starter()
    async with residency(tmp_path, starter) as running:
        async with running.lease(wanted("a"), 0.0):
            pass
        await running.unload(ModelName.parse("a"))
        assert starter.runners[0].closed.done()


async def test_unreadable_depths_are_forgotten(tmp_path):
    """They are a hint; a damaged file does not stop anything."""
    (tmp_path / "depths.json").write_bytes(b"{")

    depths = DepthStates(tmp_path / "depths.json")

    assert depths.known(wanted("a").manifest) is None


async def test_reclaim_asks_pairs_until_enough_is_free(tmp_path):
    """The least recently used gives first; what it cannot give, the next one does."""
    starter = Starter()
    async with residency(tmp_path, starter) as running:
        for name in ("a", "b"):
            async with running.lease(wanted(name), None):
                pass

        assert await running.reclaim(10) == 10
        assert await running.reclaim(15) == 15
        assert await running.reclaim(1000) == 20
