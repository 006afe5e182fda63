"""Life and death of runner processes, with a real child that speaks the real protocol."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from gemmad.api.errors import BadRequest, LoadFailed, PromptTooLong, RunnerCrashed, WillNotFit
from gemmad.runners.supervisor import Deadlines, Runner, RunnerSpec
from gemmad.wire import Delta, Done, Generate, Load, Message, PairFiles, Progress, Sampling
from tests.fakes.answers import each_of
from tests.fakes.fake_runner import PHASES, fake_command

QUICK = Deadlines(stall_s=1.0, ping_every_s=0.1, ping_missed_s=0.5, exit_s=0.3, terminate_s=0.3)
PATIENT = Deadlines(exit_s=0.3, terminate_s=0.3)

Start = Callable[..., Awaitable[Runner]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts fake runners; every one of them is stopped after the test."""
    running: list[Runner] = []

    async def start_one(
        limits: Deadlines = PATIENT,
        seen: Callable[[Progress], object] = lambda _: None,
        **options: Any,
    ) -> Runner:
        load = Load(files=PairFiles(target={}, drafter={}), num_ctx=64)
        runner = await Runner.start(
            RunnerSpec(load=load, log_path=tmp_path / "logs" / "nano.log", name="nano"),
            on_progress=seen,
            command=fake_command(**options),
            limits=limits,
            deadline_s=20,
        )
        running.append(runner)
        return runner

    yield start_one
    for runner in running:
        await runner.stop(grace_s=0.5)


def asking(runner: Runner, text: str = "one two three", **fields: Any) -> Generate:
    """A request of `runner` with one user message."""
    message = Message(role="user", content=text)
    return Generate(id=runner.new_id(), messages=(message,), **fields)


async def text_of(runner: Runner, request: Generate) -> str:
    """The whole answer."""
    return "".join(
        [d.text async for d in each_of(runner.generate(request)) if isinstance(d, Delta)]
    )


async def crash_of(runner: Runner, request: Generate) -> RunnerCrashed:
    """The crash that ends the answer to `request`."""
    with pytest.raises(RunnerCrashed) as caught:
        await text_of(runner, request)
    return caught.value


async def test_answer_streams_and_ends_with_done(start: Start) -> None:
    """Deltas come in order, one Done comes last."""
    runner = await start()

    frames = [frame async for frame in each_of(runner.generate(asking(runner)))]

    assert "".join(f.text for f in frames if isinstance(f, Delta)) == "echo: one two three"
    assert [isinstance(f, Done) for f in frames] == [False] * 4 + [True]


async def test_load_reports_each_phase(start: Start) -> None:
    """Progress of all four phases reaches the caller before the runner is returned."""
    seen: list[Progress] = []

    runner = await start(seen=seen.append)

    assert list(dict.fromkeys(p.phase for p in seen)) == ["import", "target", "drafter", "warm"]
    assert runner.loaded.drafter
    assert runner.alive


async def test_two_requests_get_their_own_words(start: Start) -> None:
    """Frames are routed by request id."""
    runner = await start()

    answers = await asyncio.gather(
        text_of(runner, asking(runner, "a b")), text_of(runner, asking(runner, "c d"))
    )

    assert answers == ["echo: a b", "echo: c d"]


async def test_crash_in_the_middle_reaches_every_waiting_request(start: Start) -> None:
    """A killed runner's exit and last log lines reach the one it answers and those that wait."""
    runner = await start(crash_after=2)

    crashes = await asyncio.gather(*(crash_of(runner, asking(runner)) for _ in range(3)))

    assert [crash.exit_code for crash in crashes] == [-9] * 3
    assert "SIGKILL" in str(crashes[0])
    assert "last memory" in str(crashes[0])
    assert crashes[0].log_tail == ("fake: this is a crash",)
    assert len({id(crash) for crash in crashes}) == 3


async def test_words_before_a_crash_are_delivered(start: Start) -> None:
    """What the runner sent before it died is not lost with it."""
    runner = await start(crash_after=2, exit_code=3)
    answer = each_of(runner.generate(asking(runner)))

    assert [(await anext(answer)).text, (await anext(answer)).text] == ["echo:", " one"]  # type: ignore[union-attr]
    with pytest.raises(RunnerCrashed, match="exit code 3"):
        await anext(answer)


@pytest.mark.parametrize(("kills", "starved"), [([7, 8], True), ([7, 7], False)])
async def test_a_kill_for_want_of_memory_is_told_from_others(
    start: Start, monkeypatch: pytest.MonkeyPatch, kills: list[int], starved: bool
) -> None:
    """R08: the system has killed one more process for it while the runner lived."""
    monkeypatch.setattr("gemmad.memory.oom.kills", lambda: kills[0])
    runner = await start(crash_after=1)
    kills.pop(0)
    crash = await crash_of(runner, asking(runner))

    assert crash.out_of_memory is starved
    assert ("out of memory" in crash.message) is starved


async def test_closed_is_settled_when_the_process_is_gone(start: Start) -> None:
    """`closed` carries the crash, and a later request gets it at once."""
    runner = await start(crash_after=1)
    await crash_of(runner, asking(runner))

    crash = await runner.closed

    assert crash is not None
    assert not psutil.pid_exists(runner.pid)
    assert str(crash) == str(await crash_of(runner, asking(runner)))


async def test_stop_is_not_a_crash(start: Start) -> None:
    """After stop the process is gone, `closed` holds None, a later request is told why."""
    runner = await start()

    await runner.stop()

    assert await runner.closed is None
    assert not psutil.pid_exists(runner.pid)
    assert "was stopped" in str(await crash_of(runner, asking(runner)))


async def test_stop_answers_the_request_in_flight(start: Start) -> None:
    """Nobody waits for a runner that was stopped."""
    runner = await start(endless=True, delay_s=0.01)
    answer = each_of(runner.generate(asking(runner)))
    await anext(answer)

    await runner.stop()

    with pytest.raises(RunnerCrashed, match="was stopped"):
        async for _ in answer:
            pass


async def test_stop_kills_a_runner_that_ignores_everything(start: Start) -> None:
    """Neither a lost shutdown frame nor a blocked SIGTERM keeps the process alive."""
    runner = await start(ignore_sigterm=True, deaf=True)

    await asyncio.gather(runner.stop(grace_s=0.1), runner.stop(grace_s=0.1))

    assert not psutil.pid_exists(runner.pid)


async def test_a_daemon_that_stood_still_kills_nobody_for_silence(start: Start) -> None:
    """Nobody was asked meanwhile: the time counts as nobody's (SIGSTOP, a debugger)."""
    runner = await start(limits=QUICK)
    first = runner._last_pong
    while runner._last_pong == first:  # noqa: ASYNC110  (no pong is under way then)
        await asyncio.sleep(0)

    time.sleep(3 * QUICK.ping_missed_s)  # noqa: ASYNC251  (the loop standing still is the point)
    await asyncio.wait({runner.closed}, timeout=2 * QUICK.ping_missed_s)

    assert not runner.closed.done()


@pytest.mark.parametrize("phase", PHASES)
async def test_stall_in_load_names_phase_and_last_log_line(
    start: Start, tmp_path: Path, phase: str
) -> None:
    """R01: a load that does not move is killed; the error says where it stood, and its words."""
    with pytest.raises(LoadFailed) as caught:
        await start(limits=QUICK, stall_in=phase, say="reading layer 7")

    assert f"phase '{phase}'" in str(caught.value)
    assert "reading layer 7" in str(caught.value)
    assert (tmp_path / "logs" / "nano.log").read_text() == "reading layer 7\n"


async def test_repeated_progress_is_a_stall(start: Start) -> None:
    """Frames that say the same again and again do not keep a stuck load alive."""
    with pytest.raises(LoadFailed, match="no progress for 1 s"):
        await start(limits=QUICK, stall_in="warm", repeat_progress=True)


async def test_load_failure_keeps_the_runners_words(start: Start) -> None:
    """The runner's own code, sentence and fix become the error."""
    with pytest.raises(LoadFailed) as caught:
        await start(load_error=["load_failed", "Tensor x is missing."])

    assert str(caught.value) == "Tensor x is missing. Try another."


async def test_cancelled_start_leaves_no_process(start: Start) -> None:
    """Giving up on a load kills its process."""
    others = set(psutil.Process().children())
    loading = asyncio.Event()
    starting = asyncio.ensure_future(start(stall_in="import", seen=lambda _: loading.set()))
    await loading.wait()

    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting

    left = set(psutil.Process().children()) - others
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


async def test_leaving_early_cancels_in_the_runner(start: Start) -> None:
    """The runner stops working for a caller that is gone: the next request gets its turn."""
    runner = await start(endless=True, delay_s=0.001)
    first = runner.generate(asking(runner))
    await anext(first)

    await first.aclose()
    second = each_of(runner.generate(asking(runner, "next")))

    assert (await anext(second)).text == "echo:"  # type: ignore[union-attr]
    await second.aclose()
    await runner.stop()
    assert runner.log_tail[0] == "cancel 1"


async def test_refusal_is_an_error_of_its_code(start: Start) -> None:
    """A refused request raises its own class and leaves the runner in service."""
    runner = await start()

    with pytest.raises(PromptTooLong):
        await text_of(runner, asking(runner, "word " * 65))

    assert await text_of(runner, asking(runner, "still here")) == "echo: still here"


async def test_request_larger_than_a_frame_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that does not fit is the caller's error, not a crash."""
    runner = await start()
    monkeypatch.setattr("gemmad.wire.MAX_FRAME_BYTES", 1000)

    with pytest.raises(BadRequest, match="too large"):
        await text_of(runner, asking(runner, "x" * 2000))

    assert runner.alive


@pytest.mark.parametrize("option", ["garbage_after", "huge_after"])
async def test_bytes_of_no_frame_end_the_runner(start: Start, option: str) -> None:
    """A runner that breaks the protocol is killed and its requests are told so."""
    runner = await start(endless=True, delay_s=0.001, **{option: 1})

    assert "broke the protocol" in str(await crash_of(runner, asking(runner)))
    assert not psutil.pid_exists(runner.pid)


async def test_closed_channel_ends_the_runner(start: Start) -> None:
    """A process that lives on behind a closed channel is of no use and is killed."""
    runner = await start(close_after=1)

    assert (await crash_of(runner, asking(runner))).exit_code == -9


async def test_deaf_runner_is_killed(start: Start) -> None:
    """R04: pings that stay unanswered end the runner."""
    runner = await start(limits=QUICK, deaf=True)

    crash = await runner.closed

    assert "did not answer for" in str(crash)


async def test_pings_are_answered_during_a_long_answer(start: Start) -> None:
    """A working runner that answers pings is not taken for dead."""
    runner = await start(limits=QUICK, delay_s=0.2)

    assert await text_of(runner, asking(runner)) == "echo: one two three"


async def test_num_predict_and_draft_reach_the_runner(start: Start) -> None:
    """Options travel unchanged."""
    runner = await start()
    request = asking(runner, sampling=Sampling(num_predict=2), draft="off")

    last = [frame async for frame in each_of(runner.generate(request))][-1]

    assert isinstance(last, Done)
    assert (last.reason, last.eval_tokens, last.draft.depth) == ("length", 2, 0)


async def test_reclaim_tells_what_was_given_back(start: Start) -> None:
    """Each caller gets the answer to its own question; a stopped runner has nothing to give."""
    runner = await start(kv_bytes=50)

    assert await asyncio.gather(runner.reclaim(20), runner.reclaim(80)) == [20, 50]
    await runner.stop()
    assert await runner.reclaim(20) == 0


async def test_reclaim_ends_with_the_process(start: Start) -> None:
    """Nobody waits for a runner that died before it answered."""
    runner = await start(crash_after=1)
    asked = asyncio.create_task(crash_of(runner, asking(runner)))
    await asked

    assert await runner.reclaim(20) == 0


async def test_drafter_leaves_comes_back_and_is_measured(start: Start) -> None:
    """Each call gets its own answer, in whatever order the runner gives those of other kinds."""
    runner = await start(drafter_bytes=70, target_bytes=900, device_bytes=5)
    assert await runner.attach() == 70

    freed, again, measured = await asyncio.gather(
        runner.detach(), runner.detach(), runner.measure()
    )

    assert (freed, again) == (70, 0)
    assert (measured.drafter_bytes, measured.target_bytes, measured.device_bytes) == (0, 900, 5)


async def test_failed_attach_is_the_error_of_its_code(start: Start) -> None:
    """The daemon learns why, and the runner goes on."""
    runner = await start(attach_error=["will_not_fit", "No room."])

    with pytest.raises(WillNotFit, match="No room"):
        await runner.attach()

    assert runner.alive


async def test_nobody_waits_for_a_runner_that_is_gone(start: Start) -> None:
    """A question that was open when it died, and one that comes later, end alike."""
    runner = await start(mute=True)
    open_questions = [
        asyncio.ensure_future(runner.attach()),
        asyncio.ensure_future(runner.detach()),
    ]
    await asyncio.sleep(0)
    os.kill(runner.pid, signal.SIGKILL)

    with pytest.raises(RunnerCrashed):
        await open_questions[0]
    assert await open_questions[1] == 0
    with pytest.raises(RunnerCrashed):
        await runner.measure()
    assert await runner.detach() == 0
