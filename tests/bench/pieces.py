"""What a piece of an answer costs in the runner and in the daemon, beside an engine that is free.

    PYTHONPATH=daemon:client:modelfiles:. python -m tests.bench.pieces --streams 1,4,16

A real daemon with a real runner whose model recites a text (`tests.bench.scripted_runner`). A JSON
line for each number of streams and time of a round: CPU microseconds a piece of both processes and
of the same engine alone in this one, and what a client sees. Rounds of 0 ms show what either
process can do at most; longer ones what a piece costs while everyone keeps up.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench import server
from tests.bench.asking import Answer, Client

_LOAD_S = 60.0


class Cpu:
    """The CPU time of another process, all its threads together (Linux)."""

    def __init__(self, pid: int) -> None:
        self._clock = (~pid << 3) | 2  # as the kernel names a process's own clock

    def seconds(self) -> float:
        """From its start on."""
        return time.clock_gettime(self._clock)


class Turn(NamedTuple):
    """One turn of some streams."""

    answers: Sequence[Answer]
    daemon_s: float
    runner_s: float
    wall_s: float

    @property
    def pieces(self) -> int:
        """Of all answers."""
        return sum(answer.pieces for answer in self.answers)

    def us(self, seconds: float) -> float:
        """Microseconds a piece."""
        return 1e6 * seconds / self.pieces


def daemon_program(options: argparse.Namespace, round_ms: float) -> tuple[str, ...]:
    """This module as a daemon whose runners recite."""
    return ("-m", "tests.bench.pieces", "--as-daemon", *_numbers(options, round_ms))


def run_daemon(options: argparse.Namespace) -> int:
    """The real daemon's life."""
    from gemmad.app import Parts, main

    how = _numbers(options, float(options.round_ms))

    def command(fd: int) -> Sequence[str]:
        program = (sys.executable, "-m", "tests.bench.scripted_runner")
        return (*program, *how, "--fd", str(fd))

    return main([], Parts(runner=command))


def _numbers(options: argparse.Namespace, round_ms: float) -> tuple[str, ...]:
    prefill = ("--prefill-ms", str(options.prefill_ms))
    return ("--round-ms", str(round_ms), *prefill, "--depth", str(options.depth))


def child_of(pid: int, named: str) -> int:
    """The process that `pid` started and whose command line has this word.

    Raises:
        SystemExit: there is none.
    """
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            if named in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
    raise SystemExit(f"{pid} has no child {named!r}")


def turn(
    client: Client, numbers: Sequence[int], options: argparse.Namespace, both: list[Cpu]
) -> Turn:
    """Some answers at once, and what they cost."""
    before = [cpu.seconds() for cpu in both]
    begun = time.perf_counter()
    answers = client.answers(numbers, options.depth)
    wall_s = time.perf_counter() - begun
    time.sleep(0.05)  # what follows an answer's end belongs to it
    daemon_s, runner_s = (cpu.seconds() - b for cpu, b in zip(both, before, strict=True))
    return Turn(answers, daemon_s, runner_s, wall_s)


class Alone(NamedTuple):
    """One turn of the engine alone: CPU microseconds a piece, medians of milliseconds."""

    us: float
    between_ms: float
    first_ms: float


def engine_alone(options: argparse.Namespace, streams: int, round_ms: float) -> Callable[[], Alone]:
    """Measures the engine alone, in this process."""
    from gemmarunner.engine.engine import Engine
    from gemmarunner.engine.events import EngineRequest, Tokens
    from gemmarunner.engine.request import Sampling
    from tests.bench.scripted_runner import reciter
    from tests.bench.shapes import NANO

    files = {path.name: path for path in (NANO / "target").iterdir()}
    times = argparse.Namespace(**vars(options) | {"round_ms": round_ms})
    backend = reciter(files, streams, options.num_ctx, times)
    engine = Engine(backend, eos_ids=frozenset())
    sampling = Sampling(temperature=0.0, num_predict=options.tokens)

    def measure() -> Alone:
        begun, pieces, spans = time.process_time(), 0, dict[int, list[float]]()
        asked = time.perf_counter()
        for id in range(streams):
            engine.add(EngineRequest(id, list(range(5, 25)), sampling, options.depth))
        while engine.has_work:
            events, now = engine.step(), time.perf_counter()
            for event in events:
                pieces += isinstance(event, Tokens)
                spans.setdefault(event.id, [now, now])[1] = now
        us = 1e6 * (time.process_time() - begun) / pieces
        between = statistics.median(end - first for first, end in spans.values())
        first = statistics.median(first - asked for first, _ in spans.values())
        return Alone(us, 1e3 * between / (options.tokens - 1), 1e3 * first)

    return measure


def measure(options: argparse.Namespace, streams: int, round_ms: float, home: Path) -> None:
    """Prints one line."""
    own = engine_alone(options, streams, round_ms)
    program = daemon_program(options, round_ms)
    with server.daemon(options, home, spare=False, program=program) as client:
        client.answer(0, options.depth)
        daemon_pid = child_of(_own_pid(), "--as-daemon")
        both = [Cpu(daemon_pid), Cpu(child_of(daemon_pid, "scripted_runner"))]
        turns, engine = [], []
        for number in range(options.repeats + 1):
            numbers = range(number * streams, (number + 1) * streams)
            turns.append(turn(client, numbers, options, both))
            engine.append(own())
    turns, engine = turns[1:], engine[1:]
    median = statistics.median
    between_ms = median(a.between_ms for t in turns for a in t.answers)
    engine_between_ms = median(one.between_ms for one in engine)
    first_ms = median(a.first_s for t in turns for a in t.answers) * 1e3
    server.say(
        "pieces",
        streams=streams,
        round_ms=round_ms,
        depth=options.depth,
        pieces=turns[0].pieces,
        runner_us=round(median(t.us(t.runner_s) for t in turns), 1),
        engine_us=round(median(one.us for one in engine), 1),
        daemon_us=round(median(t.us(t.daemon_s) for t in turns), 1),
        between_ms=round(between_ms, 4),
        per_token_ratio=round(between_ms / engine_between_ms, 3),
        first_ms=round(first_ms, 2),
        first_more_ms=round(first_ms - median(one.first_ms for one in engine), 2),
        last_first_ms=round(median(max(a.first_s for a in t.answers) for t in turns) * 1e3, 2),
        pieces_per_s=round(median(t.pieces / t.wall_s for t in turns)),
    )


def _own_pid() -> int:
    import os

    return os.getpid()


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-daemon", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--streams", default="1,4,16")
    parser.add_argument("--round-ms", default="0,2", help="rounds last so long")
    parser.add_argument("--prefill-ms", type=float, default=0.0, help="a prompt's chunk, in Python")
    parser.add_argument("--depth", type=int, default=0, help="drafts of a round, all accepted")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    fixed = {"num_ctx": 4096, "quantize": "none", "device": "cpu", "threads": 1, "pair": None}
    return argparse.Namespace(**vars(options), **fixed, model="nano")


def main() -> None:
    """Prints a line each."""
    options = read_options()
    if options.as_daemon:
        sys.exit(run_daemon(options))
    counts = [int(count) for count in options.streams.split(",")]
    with tempfile.TemporaryDirectory() as place:
        for round_ms in map(float, options.round_ms.split(",")):
            for streams in counts:
                options.streams = [streams]
                measure(options, streams, round_ms, Path(place) / "home")


if __name__ == "__main__":
    main()
