"""The built-in pair as GGUF answers through the real runner as it does from safetensors."""

from pathlib import Path

import pytest

from gemmad.runners.supervisor import Runner, RunnerSpec
from gemmad.wire import Delta, Done, DraftMode, Generate, Load, Message, PairFiles, Sampling
from gemmarunner.export import export
from tests.unit.runner.test_export import nano, quiet, request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
QUESTIONS = ("Hi", "How do I pull a model?", "My name is Ada. What is my name?")


async def answers(files: PairFiles, log: Path, draft: DraftMode) -> list[tuple[str, int]]:
    """What a runner says to each question, and how many drafts it accepted."""
    load = Load(files=files, num_ctx=512, device="cpu")
    spec = RunnerSpec(load=load, log_path=log, name="nano")
    runner = await Runner.start(spec, on_progress=lambda _: None)
    try:
        assert runner.loaded.drafter, runner.loaded.drafter_note
        return [await answer(runner, question, draft) for question in QUESTIONS]
    finally:
        await runner.stop()


async def answer(runner: Runner, question: str, draft: DraftMode) -> tuple[str, int]:
    """One greedy answer."""
    asked = Generate(
        id=runner.new_id(),
        messages=(Message(role="user", content=question),),
        sampling=Sampling(temperature=0.0, num_predict=60),
        draft=draft,
    )
    frames = [frame async for some in runner.generate(asked) for frame in some]
    assert isinstance(frames[-1], Done)
    words = "".join(frame.text for frame in frames if isinstance(frame, Delta))
    return words, frames[-1].draft.accepted


async def test_gguf_answers_as_safetensors(tmp_path: Path) -> None:
    """Equal words with and without drafts, and drafts are accepted."""
    whole, draft = export(request(tmp_path / "nano.gguf"), quiet)
    files = PairFiles(target={"nano.gguf": str(whole)}, drafter={"mtp.gguf": str(draft)})
    expected = await answers(nano(), tmp_path / "a.log", "off")
    plain = await answers(files, tmp_path / "b.log", "off")
    drafted = await answers(files, tmp_path / "c.log", 3)

    assert [words for words, _ in plain] == [words for words, _ in expected]
    assert [words for words, _ in drafted] == [words for words, _ in expected]
    assert sum(accepted for _, accepted in drafted) > 10
