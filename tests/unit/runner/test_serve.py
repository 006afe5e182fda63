"""The runner's main loop over a real socket pair, with a load that the test controls."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from gemmad import wire
from gemmad.api.errors import WillNotFit
from gemmarunner import serve
from gemmarunner.channel import Channel
from gemmarunner.serving import Served
from tests.fakes.stub_engine import LOADED, stub_served

Report = Callable[[str, int, int], None]
Compose = Callable[[wire.Load, Report], Served]
Frame = TypeVar("Frame")
LOAD = wire.Load(files=wire.PairFiles(target={}))


class Composer:
    """Loads as the test says; preparing is counted, and fails when told to."""

    def __init__(self, compose: Compose, error: Exception | None = None) -> None:
        self.compose = compose
        self.error = error
        self.prepared = 0

    def prepare(self) -> None:
        self.prepared += 1
        if self.error:
            raise self.error


class Daemon:
    """The other end: sends frames, reads frames, and sees the runner's exit code."""

    def __init__(self, compose: Compose, error: Exception | None = None) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.socket.settimeout(20)
        self.splitter = wire.FrameSplitter()
        self.exit_codes: list[int] = []
        self.composer = Composer(compose, error)
        server = serve.Server(Channel(self.theirs), self.composer)
        self.thread = threading.Thread(target=lambda: self.exit_codes.append(server.run()))
        self.thread.start()
        self.frames = self.read()

    def send(self, *frames: wire.ToRunner) -> None:
        self.socket.sendall(b"".join(map(wire.encode, frames)))

    def read(self) -> Iterator[wire.FromRunner]:
        while data := self.socket.recv(65536):
            yield from map(wire.decode_from_runner, self.splitter.feed(data))

    def until(self, kind: type[Frame]) -> Frame:
        return next(frame for frame in self.frames if isinstance(frame, kind))

    def exit_code(self) -> int:
        self.thread.join(20)
        self.socket.close()
        self.theirs.close()
        return self.exit_codes[0]


def at_once(load: wire.Load, report: Report) -> Served:
    """A load that takes no time."""
    report("import", 0, 0)
    report("target", 3, 7)
    return stub_served()


@pytest.fixture(autouse=True)
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main loop looks around often, so that no test waits for it."""
    monkeypatch.setattr(serve, "TICK_S", 0.01)


def test_hello_load_answer_shutdown() -> None:
    """A whole life: hello first, phases, loaded, an answer, exit code 0."""
    daemon = Daemon(at_once)
    daemon.send(LOAD, wire.Generate(id=1, prompt="x=y"))

    kinds = [type(next(daemon.frames))]
    while kinds[-1] is not wire.Loaded:
        kinds.append(type(next(daemon.frames)))

    assert list(dict.fromkeys(kinds)) == [wire.Hello, wire.Progress, wire.Loaded]
    assert daemon.until(wire.Delta).text == "y"
    assert daemon.until(wire.Done).reason == "stop"
    daemon.send(wire.Shutdown())
    assert daemon.exit_code() == 0


def test_ping_is_answered_during_a_load_and_progress_goes_on() -> None:
    """A load that takes its time neither silences the runner nor stops its reports."""
    free = threading.Event()

    def slow(load: wire.Load, report: Report) -> Served:
        report("target", 3, 7)
        free.wait(20)
        return stub_served()

    daemon = Daemon(slow)
    daemon.send(LOAD)
    reports = [daemon.until(wire.Progress) for _ in range(3)]
    daemon.send(wire.Ping(n=5))

    assert reports == [wire.Progress("target", 3, 7)] * 3
    assert daemon.until(wire.Pong).n == 5
    free.set()
    assert daemon.until(wire.Loaded) == LOADED
    daemon.socket.shutdown(socket.SHUT_RDWR)
    assert daemon.exit_code() == serve.EXIT_DISCONNECTED


def test_prepared_runner_loads_when_told() -> None:
    """A spare says when it has imported, answers pings meanwhile, and then loads like any other."""
    daemon = Daemon(at_once)
    daemon.send(wire.Prepare(), wire.Ping(n=1))

    kinds = {type(next(daemon.frames)) for _ in range(3)}
    daemon.send(LOAD)

    assert kinds <= {wire.Hello, wire.Progress, wire.Prepared, wire.Pong}
    assert daemon.until(wire.Loaded) == LOADED
    assert daemon.composer.prepared == 1
    daemon.send(wire.Shutdown())
    assert daemon.exit_code() == 0


def test_failed_preparation_is_left_to_the_load() -> None:
    """The daemon hears of it where it can tell somebody: from the load."""
    daemon = Daemon(at_once, ImportError("no torch"))
    daemon.send(wire.Prepare(), LOAD)

    kinds = [type(next(daemon.frames))]
    while kinds[-1] is not wire.Loaded:
        kinds.append(type(next(daemon.frames)))

    assert wire.Prepared not in kinds
    daemon.send(wire.Shutdown())
    assert daemon.exit_code() == 0


def test_reclaim_is_answered_before_and_after_the_load() -> None:
    """Without a pair nothing can be given back; with one its engine is asked."""
    daemon = Daemon(at_once)
    daemon.send(wire.Reclaim(10))
    assert daemon.until(wire.Reclaimed).nbytes == 0

    daemon.send(LOAD)
    daemon.until(wire.Loaded)
    daemon.send(wire.Reclaim(10))

    assert daemon.until(wire.Reclaimed).nbytes == 10
    daemon.send(wire.Shutdown())
    assert daemon.exit_code() == 0


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (WillNotFit("Too big.", fix="Buy more."), "will_not_fit", "Too big."),
        (KeyError("x"), "load_failed", "The pair could not be loaded: KeyError: 'x'."),
    ],
)
def test_failed_load_says_why_and_exits(error: Exception, code: str, message: str) -> None:
    """Every failure has a code and a sentence; the process ends by itself."""

    def failing(load: wire.Load, report: Report) -> Served:
        raise error

    daemon = Daemon(failing)
    daemon.send(LOAD)

    failed = daemon.until(wire.LoadFailed)

    assert (failed.code, failed.message) == (code, message)
    assert daemon.exit_code() == 0


def test_garbage_from_the_daemon_ends_the_runner() -> None:
    """A runner does not guess what broken frames may mean."""
    daemon = Daemon(at_once)

    daemon.socket.sendall(b"\x00\x00\x00\x02{}")

    assert daemon.exit_code() == serve.EXIT_PROTOCOL


BROKEN = """
import logging, socket, sys
sys.path[:0] = {paths!r}
from gemmarunner.channel import Channel
from gemmarunner.serve import Server
from tests.fakes.stub_engine import StubEngine, stub_served

def step(self):
    raise ValueError("the cache contradicts itself")

StubEngine.step = step
class Composer:
    def compose(self, load, report):
        return stub_served()

Server(Channel(socket.socket(fileno={fd})), Composer()).run()
"""


def test_engine_that_breaks_ends_the_process() -> None:
    """A fault that is no request's own ends the runner, and its log says where."""
    root = Path(__file__).parents[3]
    ours, theirs = socket.socketpair()
    code = BROKEN.format(paths=[str(root), str(root / "daemon")], fd=theirs.fileno())
    ours.sendall(wire.encode(LOAD) + wire.encode(wire.Generate(id=1, prompt="x=y")))

    run = subprocess.run(
        (sys.executable, "-c", code),
        pass_fds=(theirs.fileno(),),
        capture_output=True,
        text=True,
        check=False,
    )

    ours.close()
    theirs.close()
    assert run.returncode == serve.EXIT_BROKEN
    assert "the cache contradicts itself" in run.stderr
