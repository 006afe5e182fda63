"""Requests through threads, a stub engine and the real text path."""

import queue
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from gemmad.wire import Delta, Done, FromRunner, Generate, Message, RequestRefused, Sampling
from gemmarunner.engine.events import EngineEvent, EngineRequest, Failed, Tokens
from gemmarunner.serving import Serving
from tests.fakes.stub_engine import TOKENS, StubEngine, stub_served


class Harness:
    """A Serving whose threads run, and the frames it sends."""

    def __init__(self) -> None:
        self.frames: queue.SimpleQueue[FromRunner] = queue.SimpleQueue()
        self.together: list[int] = []  # how many frames each send carried
        self.serving = Serving(stub_served(), self.put)
        for work in (self.serving.run_engine, self.serving.run_writer):
            threading.Thread(target=work, daemon=True).start()

    def put(self, *frames: FromRunner) -> None:
        self.together.append(len(frames))
        for frame in frames:
            self.frames.put(frame)

    def answer(self, id: int = 1, **fields: object) -> list[FromRunner]:
        """All frames of a request, to its last."""
        self.serving.add(Generate(id=id, **fields))  # type: ignore[arg-type]
        return list(self.rest())

    def rest(self) -> Iterator[FromRunner]:
        while not isinstance(frame := self.frames.get(timeout=20), Done | RequestRefused):
            yield frame
        yield frame


@pytest.fixture
def harness() -> Harness:
    """A fresh one."""
    return Harness()


def shown(frames: list[FromRunner]) -> tuple[str, str, int]:
    """Text, thoughts and the number of calls."""
    deltas = [frame for frame in frames if isinstance(frame, Delta)]
    calls = sum(len(d.tool_calls) for d in deltas)
    return "".join(d.text for d in deltas), "".join(d.thinking for d in deltas), calls


def say(text: str) -> tuple[object, ...]:
    """A conversation that the stub answers with `text`."""
    return (Message(role="user", content=text),)


THOUGHT = "<|channel>thought\nhm\n<channel|>Yes."


def test_answer_is_parsed_and_ends_with_its_figures(harness: Harness) -> None:
    """Thoughts go apart, and Done carries the engine's figures, ids and what was learned."""
    frames = harness.answer(messages=say(THOUGHT), think=True)
    done = frames[-1]

    assert shown(frames) == ("Yes.", "hm", 0)
    assert isinstance(done, Done)
    assert (done.reason, done.prompt_tokens, done.eval_ns) == ("stop", 3, 20)
    assert done.depth_state == {"learned": 1}
    assert TOKENS.decode(list(done.context), skip_special_tokens=False) == f"={THOUGHT}{THOUGHT}"


def test_thoughts_are_dropped_unless_asked_for(harness: Harness) -> None:
    """Without think only the answer is sent."""
    assert shown(harness.answer(messages=say(THOUGHT))) == ("Yes.", "", 0)


def test_raw_answer_keeps_its_tags(harness: Harness) -> None:
    """A raw request is not parsed."""
    assert shown(harness.answer(prompt=f"x={THOUGHT}")) == (THOUGHT, "", 0)


def test_calls_are_sent_as_calls(harness: Harness) -> None:
    """A tool call is no text."""
    frames = harness.answer(messages=say("Wait.<|tool_call>call:f{a:1}<tool_call|>"))

    assert shown(frames) == ("Wait.", "", 1)


def test_stop_string_ends_the_run(harness: Harness) -> None:
    """The text ends before it, the engine is told, and the reason is stop."""
    sampling = Sampling(stop=("user",))

    frames = harness.answer(messages=say("The user says something"), sampling=sampling)

    assert shown(frames)[0] == "The "
    assert frames[-1].reason == "stop"  # type: ignore[union-attr]


def test_cancel_ends_an_endless_answer(harness: Harness) -> None:
    """Done says cancel, and a second cancel or an unknown one does nothing."""
    harness.serving.add(Generate(id=7, prompt="x="))
    harness.frames.get(timeout=20)

    for id in (7, 7, 8):
        harness.serving.cancel(id)

    assert list(harness.rest())[-1].reason == "cancel"  # type: ignore[union-attr]
    assert shown(harness.answer(id=9, prompt="x=next")) == ("next", "", 0)


def test_cancel_before_the_prompt_is_written_is_not_lost(harness: Harness) -> None:
    """However early the cancel, the request ends."""
    for id in range(20):
        harness.serving.add(Generate(id=id, prompt="x="))
        harness.serving.cancel(id)
        assert list(harness.rest())[-1].reason == "cancel"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [
        ("bad", "bad_request", "No."),
        ("odd", "error", "The request could not be read: RuntimeError('surprise')."),
    ],
)
def test_refused_request_leaves_the_others_alone(
    harness: Harness, prompt: str, code: str, message: str
) -> None:
    """A request that cannot be written is refused; the next is answered."""
    refused = harness.answer(prompt=prompt)[0]

    assert isinstance(refused, RequestRefused)
    assert (refused.code, refused.message) == (code, message)
    assert shown(harness.answer(id=2, prompt="x=fine")) == ("fine", "", 0)


def test_failure_in_the_engine_refuses_its_request(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model could not run is answered, too."""
    failed = Failed(1, RuntimeError("out of memory"))
    monkeypatch.setattr(StubEngine, "finished", lambda *_: failed)

    refused = harness.answer(prompt="x=a")[-1]

    assert isinstance(refused, RequestRefused)
    assert "out of memory" in refused.message


def test_what_one_step_brought_is_sent_at_once(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is woken once a round, however many answers the round moved on."""

    def step(engine: StubEngine) -> list[EngineEvent]:
        while not engine.inbox.empty():
            engine.running[cast(EngineRequest, engine.inbox.get()).id] = None
        if len(engine.running) < 2:
            return []
        engine.running.clear()
        ends = [engine.finished(id, "stop") for id in (1, 2)]
        return [Tokens(1, (400,)), Tokens(2, (400,)), *ends]

    monkeypatch.setattr(StubEngine, "step", step)
    for id in (1, 2):
        harness.serving.add(Generate(id=id, prompt="x="))
    frames = [harness.frames.get(timeout=20) for _ in range(4)]

    assert [type(frame) for frame in frames] == [Delta, Delta, Done, Done]
    assert harness.together == [4]
