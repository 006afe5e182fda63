"""Residency with runners in this process: leases, sharing, crashes, the end."""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gemmad import wire
from gemmad.api.errors import LoadFailed, RunnerCrashed, TimedOut
from gemmad.core import ModelName
from gemmad.residency.depths import DepthStates
from gemmad.residency.loop import Senses
from gemmad.residency.resident import State
from tests.fakes.machines import machine_of
from tests.fakes.played_residency import played_residency
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
async def residency(tmp_path, starter, **options):
    depths = DepthStates(tmp_path / "depths.json")

    def prepare(want, fit):
        files = wire.PairFiles(target={})
        known = depths.known(want.manifest)
        return wire.Load(files=files, num_ctx=fit.setting.num_ctx, depth_state=known)

    running = played_residency(tmp_path, starter, prepare, depths=depths, **options)
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
            words = [event async for some in lease.generate(request) for event in some]
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


class Reading:
    """A probe whose figures the test sets; it counts how often it is asked."""

    def __init__(self, *gpus: int) -> None:
        self.machine = machine_of(1 << 40, *gpus)
        self.reads = 0

    def read(self):
        self.reads += 1
        return self.machine

    def leave_free(self, nbytes: int) -> None:
        gpu, *others = self.machine.devices
        self.machine = replace(self.machine, devices=(replace(gpu, free=nbytes), *others))


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_outside_pressure_takes_a_busy_drafter_within_two_seconds(tmp_path):
    """The running answer goes on; events and the snapshot say what happened and why."""
    starter, probe, heard = Starter(), Reading(1000), []
    async with (
        residency(tmp_path, starter, probe=probe, on_event=heard.append, reserve=50) as running,
        running.lease(wanted("a"), None),
    ):
        began = time.monotonic()
        probe.leave_free(45)
        await until(lambda: starter.runners[0].drafter_bytes == 0)
        took_s = time.monotonic() - began
        await until(lambda: running.snapshot().residents[0].drafter.state == "detached")
        shown = running.snapshot()

    assert took_s < 2.0
    assert (shown.residents[0].state, shown.residents[0].users) == ("ready", 1)
    assert shown.residents[0].drafter.why == "memory is short"
    assert [b.free for b in shown.budgets if b.id == "cuda:0"] == [45]
    kinds = [event.kind for event in heard]
    assert kinds.index("loading") < kinds.index("loaded") < kinds.index("pressure")
    assert kinds.index("pressure") < kinds.index("detached")


async def test_a_listener_s_fault_ends_nothing(tmp_path):
    """Events are told, whatever whoever listens does with them."""

    def fault(_event):
        raise ValueError("a bug of the listener")

    starter = Starter()
    async with (
        residency(tmp_path, starter, on_event=fault) as running,
        running.lease(wanted("a"), None),
    ):
        assert running.snapshot().totals.loads == 1


async def test_nothing_in_memory_is_nothing_to_look_at(tmp_path):
    """The machine is read when a request comes, not while the daemon is idle."""
    probe = Reading()
    async with residency(tmp_path, Starter(), probe=probe) as running:
        await asyncio.sleep(0)
        assert probe.reads == 0

        async with running.lease(wanted("a"), None):
            assert probe.reads > 0


async def test_an_answer_that_takes_too_long_is_an_error(tmp_path):
    """Only where the settings limit it; the runner is told to stop."""
    starter = Starter()
    async with (
        residency(tmp_path, starter, request_s=0.05) as running,
        running.lease(wanted("a"), None) as lease,
    ):
        starter.runners[0].gate.clear()
        request = wire.Generate(id=7, messages=(wire.Message(role="user", content="hi"),))
        with pytest.raises(TimedOut, match="was stopped"):
            _ = [event async for some in lease.generate(request) for event in some]


async def test_a_suspended_machine_checks_its_runners(tmp_path):
    """Every one is asked; those that answer serve on."""
    starter = Starter()
    asleep = 0.0
    senses = Senses(Reading(), since_boot=lambda: time.monotonic() + asleep)
    async with residency(tmp_path, starter, senses=senses) as running:
        async with running.lease(wanted("a"), None):
            pass
        measured = asyncio.Event()
        measure = starter.runners[0].measure

        async def noted():
            measured.set()
            return await measure()

        starter.runners[0].measure = noted
        asleep = 3600.0
        async with running.lease(wanted("a"), None):
            await asyncio.wait_for(measured.wait(), 0.4)  # before the look after an answer

        assert running.residents()[0].state is State.READY


async def test_a_dead_probe_does_not_stop_the_daemon(tmp_path):
    """What was read last is what is known."""
    probe = Reading()
    starter = Starter()
    async with residency(tmp_path, starter, probe=probe) as running:
        async with running.lease(wanted("a"), None):
            pass

        def broken():
            raise OSError("no such driver")

        probe.read = broken
        async with running.lease(wanted("b"), None):
            pass

    assert len(starter.runners) == 2
