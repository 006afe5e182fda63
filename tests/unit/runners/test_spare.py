"""A runner that waits prepared: taken by a load, replaced, and gone when it should be."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from gemmad.runners.spare import ALWAYS, SpareLimits, SpareRunner
from gemmad.runners.starting import Spawned
from gemmad.runners.supervisor import Runner, RunnerSpec
from gemmad.wire import Delta, Generate, Load, Message, PairFiles
from tests.fakes.answers import each_of
from tests.fakes.fake_runner import fake_command

GIB = 1 << 30
CAREFUL = SpareLimits(enough_bytes=4 * GIB)


class Host:
    """Available memory, as the test says."""

    available = 8 * GIB


@pytest.fixture
async def spares(tmp_path: Path) -> AsyncIterator[list[SpareRunner]]:
    """Spare keepers of a test, all closed after it."""
    made: list[SpareRunner] = []
    yield made
    for spare in made:
        await spare.close()


def keeper(
    spares: list[SpareRunner], tmp_path: Path, limits: SpareLimits = ALWAYS, **options: object
) -> SpareRunner:
    """A keeper of fake runners."""
    spares.append(
        SpareRunner(
            fake_command(**options), tmp_path / "logs/spare.log", limits, lambda: Host.available
        )
    )
    return spares[-1]


async def load_into(spare: Spawned | None, tmp_path: Path) -> Runner:
    """A runner made of the spare; without one it could not start."""
    load = Load(files=PairFiles(target={}), num_ctx=64)
    spec = RunnerSpec(load=load, log_path=tmp_path / "logs/nano.log", name="nano")
    return await Runner.start(
        spec, on_progress=lambda _: None, command=lambda fd: ("/nowhere",), spare=spare
    )


async def until(holds: Callable[[], bool]) -> None:
    """Waits for what a task of the keeper does, which tells nobody."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def gone(spare: SpareRunner) -> None:
    """The keeper has let its process go."""
    await until(lambda: not spare.waits)


async def test_load_uses_the_spare(spares: list[SpareRunner], tmp_path: Path) -> None:
    """The waiting process serves, its log is that of the pair, and the place is empty."""
    spare = keeper(spares, tmp_path, say="I was a spare")
    spare.refill()
    taken = await spare.take()
    assert taken is not None
    runner = await load_into(taken, tmp_path)
    request = Generate(id=1, messages=(Message(role="user", content="hi"),))
    text = "".join(
        [d.text async for d in each_of(runner.generate(request)) if isinstance(d, Delta)]
    )
    await runner.stop()

    assert (text, runner.pid, spare.waits) == ("echo: hi", taken.child.pid, False)
    assert "I was a spare" in (tmp_path / "logs/nano.log").read_text()
    assert not (tmp_path / "logs/spare.log").exists()


async def test_spare_taken_after_its_greeting(spares: list[SpareRunner], tmp_path: Path) -> None:
    """Frames that were read while it waited are not missed by the load."""
    spare = keeper(spares, tmp_path)
    spare.refill()
    assert spare._spawning is not None
    waiting = await spare._spawning
    await until(lambda: waiting.is_greeted)

    runner = await load_into(await spare.take(), tmp_path)

    assert runner.loaded.num_ctx == 64
    await runner.stop()


async def test_two_loads_share_no_spare(spares: list[SpareRunner], tmp_path: Path) -> None:
    """One of two that ask at once gets it."""
    spare = keeper(spares, tmp_path)
    spare.refill()
    spare.refill()

    first, second = await asyncio.gather(spare.take(), spare.take())

    assert (first is None) != (second is None)
    for taken in (first, second):
        if taken is not None:
            await taken.close()


async def test_no_spare_without_memory(
    spares: list[SpareRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not started when memory is short, and has gone when its memory is wanted."""
    spare = keeper(spares, tmp_path, CAREFUL)
    monkeypatch.setattr(Host, "available", 3 * GIB)
    spare.refill()
    assert await spare.take() is None

    monkeypatch.setattr(Host, "available", 5 * GIB)
    spare.refill()
    assert spare._spawning is not None
    pid = (await spare._spawning).child.pid
    await spare.close()

    assert not spare.waits
    assert not psutil.pid_exists(pid)


async def test_spare_nobody_needs_leaves(spares: list[SpareRunner], tmp_path: Path) -> None:
    """After the idle time-out there is none, until the next load."""
    spare = keeper(spares, tmp_path, SpareLimits(0, idle_s=0.05))
    spare.refill()
    await gone(spare)

    assert await spare.take() is None


async def test_dead_spare_is_no_spare(spares: list[SpareRunner], tmp_path: Path) -> None:
    """One that ended by itself is forgotten, and the next one can come."""
    spare = keeper(spares, tmp_path)
    spare.refill()
    assert spare._spawning is not None
    (await spare._spawning).child.kill()
    await gone(spare)

    assert await spare.take() is None
    spare.refill()
    assert spare.waits


async def test_close_leaves_no_process(spares: list[SpareRunner], tmp_path: Path) -> None:
    """The daemon's end is the spare's."""
    spare = keeper(spares, tmp_path)
    spare.refill()
    assert spare._spawning is not None
    pid = (await spare._spawning).child.pid

    await spare.close()

    assert not psutil.pid_exists(pid)
