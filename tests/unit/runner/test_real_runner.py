"""The real runner on a tiny random pair: every part between the daemon's call and torch."""

import asyncio
from pathlib import Path

import pytest

from gemmad.runners.process import runner_command
from gemmad.runners.spare import ALWAYS, SpareRunner
from gemmad.runners.supervisor import Runner, RunnerSpec
from gemmad.wire import (
    Delta,
    Done,
    DraftMode,
    Generate,
    Load,
    Message,
    PairFiles,
    Progress,
    Sampling,
)
from tests.fakes import tiny_text
from tests.fakes.answers import each_of

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> PairFiles:
    """A random pair of the e2b shape with a tokenizer, a template and stop ids."""
    from tests.fakes import tiny_models

    directory = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "VOCAB", tiny_text.VOCAB)
        tiny_models.e2b(directory)
    tiny_text.write_text_files(directory / "target")
    target, drafter = (
        {path.name: str(path) for path in (directory / part).iterdir()}
        for part in ("target", "assistant")
    )
    return PairFiles(target=target, drafter=drafter)


async def started(files: PairFiles, tmp_path: Path, seen: list[Progress]) -> Runner:
    """A loaded runner of `files`."""
    load = Load(files=files, num_ctx=256, device="cpu", num_parallel=2)
    spec = RunnerSpec(load=load, log_path=tmp_path / "log", name="tiny")
    return await Runner.start(spec, on_progress=seen.append)


async def answer(
    runner: Runner, *, draft: DraftMode, text: str = "How do I pull?"
) -> tuple[str, Done]:
    """The raw text of a greedy answer, so that no tag is lost, and its figures."""
    request = Generate(
        id=runner.new_id(),
        prompt=f"<|turn>user\n{text}<turn|>\n<|turn>model\n",
        sampling=Sampling(temperature=0.0, num_predict=40),
        draft=draft,
    )
    frames = [frame async for frame in each_of(runner.generate(request))]
    assert isinstance(frames[-1], Done)
    return "".join(f.text for f in frames if isinstance(f, Delta)), frames[-1]


@pytest.mark.slow
async def test_pair_loads_answers_and_drafts_losslessly(files: PairFiles, tmp_path: Path) -> None:
    """Greedy answers are the same with and without the drafter, whose figures are reported."""
    seen: list[Progress] = []
    runner = await started(files, tmp_path, seen)
    try:
        (plain, off), (drafted, on) = await asyncio.gather(
            answer(runner, draft="off"), answer(runner, draft=3)
        )
    finally:
        await runner.stop()

    assert {p.phase for p in seen} == {"import", "target", "drafter", "warm"}
    assert (runner.loaded.drafter, runner.loaded.drafter_note) == (True, None)
    assert runner.loaded.target_bytes > runner.loaded.drafter_bytes > 0
    assert plain == drafted
    assert (off.draft.drafted, off.eval_tokens) == (0, on.eval_tokens)
    assert on.draft.drafted > 0
    assert on.context == off.context


@pytest.mark.slow
async def test_conversation_goes_through_the_template(files: PairFiles, tmp_path: Path) -> None:
    """A chat is answered, its prompt counted, a cancelled one leaves the runner in service."""
    runner = await started(files, tmp_path, [])
    request = Generate(id=runner.new_id(), messages=(Message(role="user", content="Hi"),))
    try:
        endless = each_of(runner.generate(request))
        first = await anext(endless)
        await endless.aclose()
        _, done = await answer(runner, draft="auto")
    finally:
        await runner.stop()

    assert isinstance(first, Delta | Done)
    assert done.prompt_tokens > 5
    assert done.depth_state is not None


async def switched(runner: Runner, text: str) -> tuple[str, Done]:
    """An answer in whose middle the drafter leaves and comes back."""
    request = Generate(
        id=runner.new_id(), prompt=text, sampling=Sampling(seed=3, num_predict=200), draft=2
    )
    pieces: list[str] = []
    async for frame in each_of(runner.generate(request)):
        if isinstance(frame, Done):
            return "".join(pieces), frame
        pieces.append(frame.text)
        if len(pieces) == 20:
            assert await runner.detach() > 0
        if len(pieces) == 60:
            assert await runner.attach() > 0
    raise AssertionError("an answer ends with its Done")


@pytest.mark.slow
async def test_words_stay_while_the_drafter_leaves_and_comes_back(
    files: PairFiles, tmp_path: Path
) -> None:
    """A sampled answer of a real runner is, word for word, what it says with its drafter."""
    runner = await started(files, tmp_path, [])
    undisturbed = Generate(
        id=runner.new_id(), prompt="Once", sampling=Sampling(seed=3, num_predict=200), draft=2
    )
    try:
        frames = [frame async for frame in each_of(runner.generate(undisturbed))]
        text, done = await switched(runner, "Once")
        measured = await runner.measure()
    finally:
        await runner.stop()

    assert text == "".join(f.text for f in frames if isinstance(f, Delta))
    assert isinstance(frames[-1], Done)
    assert 0 < done.draft.drafted < frames[-1].draft.drafted
    assert measured.drafter_bytes == runner.loaded.drafter_bytes
    assert measured.host_bytes > measured.kv_bytes


@pytest.mark.slow
async def test_pair_loaded_without_its_drafter_gets_it_later(
    files: PairFiles, tmp_path: Path
) -> None:
    """The load says why there is none, and an attach makes it draft."""
    load = Load(files=files, num_ctx=256, device="cpu", drafter=False, why="memory is short")
    spec = RunnerSpec(load=load, log_path=tmp_path / "log", name="tiny")
    runner = await Runner.start(spec, on_progress=lambda _: None)
    try:
        _, before = await answer(runner, draft=3)
        took = await runner.attach()
        _, after = await answer(runner, draft=3)
    finally:
        await runner.stop()

    assert (runner.loaded.drafter, runner.loaded.drafter_bytes) == (False, 0)
    assert {placed.what for placed in runner.loaded.placement} == {"target", "kv"}
    assert {placed.why for placed in runner.loaded.placement} == {"memory is short"}
    assert (before.draft.drafted, after.draft.drafted > 0, took > 0) == (0, True, True)


async def test_wrong_drafter_costs_only_speed(files: PairFiles, tmp_path: Path) -> None:
    """A drafter of another model is left out, with the reason, and the target serves."""
    wrong = PairFiles(target=files.target, drafter=files.target)
    runner = await started(wrong, tmp_path, [])
    try:
        text, _ = await answer(runner, draft="auto")
    finally:
        await runner.stop()

    assert text
    assert not runner.loaded.drafter
    assert runner.loaded.drafter_note


@pytest.mark.slow
async def test_spare_serves_like_a_fresh_runner(files: PairFiles, tmp_path: Path) -> None:
    """A runner that has prepared loads without importing, and answers the same."""
    spare = SpareRunner(runner_command, tmp_path / "spare.log", ALWAYS)
    spare.refill()
    fresh = await started(files, tmp_path, [])
    expected, _ = await answer(fresh, draft="off")
    await fresh.stop()
    load = Load(files=files, num_ctx=256, device="cpu", num_parallel=2)
    spec = RunnerSpec(load=load, log_path=tmp_path / "log", name="tiny")
    runner = await Runner.start(spec, on_progress=lambda _: None, spare=await spare.take())
    try:
        text, _ = await answer(runner, draft="off")
    finally:
        await runner.stop()
        await spare.close()

    assert text == expected
