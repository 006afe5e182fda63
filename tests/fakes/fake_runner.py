"""A runner without a model: a real process that speaks the real protocol, and fails on demand.

It answers `echo: <last user message>` word by word. How it misbehaves is said in JSON, either by
`fake_command(crash_after=2)` (command line) or in a target file `fake.json` of the Load:

    delay_s 0.0          between two deltas           say ""            printed at start
    crash_after null     deltas, SIGKILL to itself    load_error null   [code, message]
    exit_code null       crash_after exits instead    refuse null       [code, message]
    garbage_after null   deltas, bytes of no frame    stall_in ""       phase that never ends
    huge_after null      deltas, a 4 GiB header       repeat_progress   while stalled, still talk
    close_after null     deltas, closes its end       ignore_sigterm    only SIGKILL ends it
    deaf false           no pong, no shutdown         endless false     never stops by itself
    target_bytes, drafter_bytes, kv_bytes             what Loaded reports
    drafter_note null    there is no drafter, and why
    attach_error null    [code, message]              device_bytes 0    what Measured reports
    mute false           detach, attach and measure get no answer
    eats false           while it loads, takes memory until the system has no more
Asked to `eat`, it does so after the first delta, whatever its options.
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "daemon")]

from gemmad import wire  # noqa: E402  (it runs as a program, from anywhere)
from gemmarunner.harden import harden  # noqa: E402

PHASES = ("import", "target", "drafter", "warm")
DEFAULTS: dict[str, Any] = {
    "delay_s": 0.0,
    "say": "",
    "crash_after": None,
    "exit_code": None,
    "garbage_after": None,
    "huge_after": None,
    "close_after": None,
    "deaf": False,
    "endless": False,
    "stall_in": "",
    "repeat_progress": False,
    "ignore_sigterm": False,
    "load_error": None,
    "refuse": None,
    "target_bytes": 1000,
    "drafter_bytes": 100,
    "kv_bytes": 10,
    "drafter_note": None,
    "attach_error": None,
    "device_bytes": 0,
    "mute": False,
    "eats": False,
}
MEAL_BYTES, FULL_BYTES = 8 << 20, 1 << 30  # it ends by itself, should nobody stop it


def fake_command(**options: Any) -> Callable[[int], Sequence[str]]:
    """A command for `Runner.start(command=...)` that runs this file with `options`."""
    unknown = options.keys() - DEFAULTS.keys()
    assert not unknown, f"unknown options {sorted(unknown)}"

    def command(fd: int) -> Sequence[str]:
        return (sys.executable, __file__, "--fd", str(fd), "--options", json.dumps(options))

    return command


class FakeRunner:
    """One process: a thread reads frames and answers pings, the main thread answers requests."""

    def __init__(self, channel: socket.socket, options: Mapping[str, Any]) -> None:
        self.channel = channel
        self.options: dict[str, Any] = DEFAULTS | dict(options)
        self.lock = threading.Lock()  # the reading thread (pong) and the main thread both send
        self.cancelled: set[int] = set()
        self.news = threading.Condition()  # wakes the main thread for requests and cancels
        self.requests: list[wire.Generate] = []
        self.load: wire.Load | None = None
        self.drafter_bytes = 0

    def send(self, message: wire.FromRunner) -> None:
        with self.lock:
            self.channel.sendall(wire.encode(message))

    def run(self) -> None:
        self.send(wire.Hello(pid=os.getpid()))
        threading.Thread(target=self.read, daemon=True).start()
        self.start()
        while True:
            with self.news:
                self.news.wait_for(lambda: self.requests)
                request = self.requests.pop(0)
            self.answer(request)

    def read(self) -> None:
        splitter = wire.FrameSplitter()
        while data := self.channel.recv(65536):
            for body in splitter.feed(data):
                self.on_frame(wire.decode_to_runner(body))

    def on_frame(self, frame: wire.ToRunner) -> None:
        with self.news:
            match frame:
                case wire.Prepare():
                    self.send(wire.Prepared())
                case wire.Reclaim():
                    self.send(wire.Reclaimed(min(frame.nbytes, self.options["kv_bytes"])))
                case wire.Detach() if not self.options["mute"]:
                    self.send(wire.Detached(self.drafter_bytes))
                    self.drafter_bytes = 0
                case wire.Attach() if not self.options["mute"]:
                    self.send(self.attached())
                case wire.Measure() if not self.options["mute"]:
                    self.send(self.measured())
                case wire.Load():
                    self.load = frame
                case wire.Generate():
                    self.requests.append(frame)
                case wire.Cancel():
                    print(f"cancel {frame.id}", file=sys.stderr, flush=True)
                    self.cancelled.add(frame.id)
                case wire.Ping() if not self.options["deaf"]:
                    self.send(wire.Pong(n=frame.n))
                case wire.Shutdown() if not self.options["deaf"]:
                    os._exit(0)
            self.news.notify_all()

    def start(self) -> None:
        with self.news:
            self.news.wait_for(lambda: self.load)
        assert self.load is not None
        if path := self.load.files.target.get("fake.json"):
            self.options |= json.loads(Path(path).read_text())
        self.obey_options_at_start()
        for phase in PHASES:
            self.send(wire.Progress(phase=phase, done=0, total=1))
            if self.options["stall_in"] == phase:
                self.stall(phase)
            self.send(wire.Progress(phase=phase, done=1, total=1))
        if self.options["eats"]:
            eat()
        if self.options["load_error"]:
            code, message = self.options["load_error"]
            self.send(wire.LoadFailed(code=code, message=message, fix="Try another."))
            os._exit(0)
        self.send(self.loaded(self.load))

    def obey_options_at_start(self) -> None:
        if self.options["say"]:
            print(self.options["say"], file=sys.stderr, flush=True)
        if self.options["ignore_sigterm"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def stall(self, phase: str) -> None:
        while True:
            time.sleep(0.05)
            if self.options["repeat_progress"]:
                self.send(wire.Progress(phase=phase, done=0, total=1))

    def loaded(self, load: wire.Load) -> wire.Loaded:
        note = self.options["drafter_note"]
        has_drafter = load.drafter and load.files.drafter is not None and note is None
        self.drafter_bytes = self.options["drafter_bytes"] if has_drafter else 0
        placed = [wire.Placed("target", "cpu", self.options["target_bytes"], load.why)]
        if has_drafter:
            placed.append(wire.Placed("drafter", "cpu", self.drafter_bytes))
        return wire.Loaded(
            device="cpu",
            dtype="float32",
            target_bytes=self.options["target_bytes"],
            drafter_bytes=self.drafter_bytes,
            kv_bytes=self.options["kv_bytes"],
            num_ctx=load.num_ctx,
            load_ns=1_000_000,
            drafter=has_drafter,
            drafter_note=note,
            placement=tuple(placed),
        )

    def attached(self) -> wire.Attached | wire.AttachFailed:
        if self.options["attach_error"]:
            code, message = self.options["attach_error"]
            return wire.AttachFailed(code=code, message=message)
        self.drafter_bytes = self.options["drafter_bytes"]
        return wire.Attached(self.drafter_bytes)

    def measured(self) -> wire.Measured:
        taken = {n: self.options[n] for n in ("device_bytes", "target_bytes", "kv_bytes")}
        return wire.Measured(
            host_bytes=1 << 20,
            drafter_bytes=self.drafter_bytes,
            prefix_bytes=0,
            peak_device_bytes=taken["device_bytes"],
            **taken,
        )

    def answer(self, request: wire.Generate) -> None:
        assert self.load is not None
        refused = self.options["refuse"]
        asked = last_words(request)
        if len(asked.split()) > self.load.num_ctx:
            refused = ("prompt_too_long", f"More than {self.load.num_ctx} tokens.")
        if refused:
            self.send(wire.RequestRefused(id=request.id, code=refused[0], message=refused[1]))
            return
        sent, reason = 0, "stop"
        for delta in self.deltas(request, asked):
            if self.is_cancelled(request.id):
                reason = "cancel"
                break
            if 0 <= request.sampling.num_predict <= sent:
                reason = "length"
                break
            self.send(delta)
            sent += 1
            if asked == "eat":
                eat()
            self.misbehave_after(sent)
        self.send(done(request, reason, prompt=len(asked.split()), words=sent))

    def is_cancelled(self, id: int) -> bool:
        with self.news:
            return self.news.wait_for(lambda: id in self.cancelled, self.options["delay_s"])

    def deltas(self, request: wire.Generate, asked: str) -> Iterator[wire.Delta]:
        if request.think:
            yield wire.Delta(id=request.id, thinking="What was said?")
        if request.tools and asked.startswith("call "):
            name = request.tools[0]["function"]["name"]  # type: ignore[index]
            call = wire.ToolCall(name=name, arguments={"text": asked.removeprefix("call ")})
            yield wire.Delta(id=request.id, tool_calls=(call,))
            return
        yield wire.Delta(id=request.id, text="echo:")
        for word in asked.split():
            yield wire.Delta(id=request.id, text=f" {word}")
        while self.options["endless"]:
            yield wire.Delta(id=request.id, text=" and")

    def misbehave_after(self, sent: int) -> None:
        if sent == self.options["crash_after"]:
            print("fake: this is a crash", file=sys.stderr, flush=True)
            if self.options["exit_code"] is not None:
                os._exit(self.options["exit_code"])
            os.kill(os.getpid(), signal.SIGKILL)
        if sent == self.options["garbage_after"]:
            self.channel.sendall(b"\x00\x00\x00\x09not json!")
        if sent == self.options["huge_after"]:
            self.channel.sendall(b"\xff\xff\xff\xff")
        if sent == self.options["close_after"]:
            self.channel.shutdown(socket.SHUT_WR)
            threading.Event().wait()


def eat() -> None:
    """Memory is taken and touched, until the system ends this process."""
    held = [bytearray(b"x" * MEAL_BYTES) for _ in range(FULL_BYTES // MEAL_BYTES)]
    raise AssertionError(f"{len(held)} meals, and there is still memory")


def last_words(request: wire.Generate) -> str:
    """What is echoed: the raw prompt, else the last user or tool message."""
    if request.prompt is not None:
        return request.prompt
    said = [m.content for m in request.messages if m.role in ("user", "tool")]
    return said[-1] if said else ""


def done(request: wire.Generate, reason: str, *, prompt: int, words: int) -> wire.Done:
    """A final frame whose figures hang together."""
    depth = {"off": 0, "auto": 2}.get(request.draft, request.draft)  # type: ignore[call-overload]
    rounds = max(1, words // 2)
    return wire.Done(
        id=request.id,
        reason=reason,
        prompt_tokens=prompt,
        prompt_ns=1_000_000,
        eval_tokens=words,
        eval_ns=2_000_000,
        draft=wire.DraftStats(
            depth=depth,
            rounds=rounds,
            drafted=rounds * depth,
            accepted=words - rounds if depth else 0,
            per_position=(0.8,) * depth,
            tokens_per_round=words / rounds,
        ),
        context=(*request.context, 2, *range(100, 100 + words)),
        depth_state={"fake": words},
    )


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--options", default="{}")
    arguments = parser.parse_args()
    channel = socket.socket(fileno=arguments.fd)
    harden(channel)
    FakeRunner(channel, json.loads(arguments.options)).run()


if __name__ == "__main__":
    main()
