"""Measures a real daemon through its HTTP API, and the same engine in this process beside it.

`PYTHONPATH=daemon:client:modelfiles:. python -m tests.bench.server --streams 1,2,4,8,16` starts a
daemon on a home of its own (so that nothing of the user's is touched), loads the model, and prints
one JSON line: first token cold and warm, milliseconds between tokens of one stream, aggregate
tokens a second for each number of streams, and what the API costs over the engine (built-in pair).
"""

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
PROMPT = "How do I pull a model? Tell me all about it, number {number}."
START_S = 30.0


class Answer(NamedTuple):
    """One streamed answer as its client saw it; seconds from the request on."""

    first_s: float
    end_s: float
    tokens: int

    @property
    def between_ms(self) -> float:
        """Milliseconds between tokens after the first."""
        return 1e3 * (self.end_s - self.first_s) / max(1, self.tokens - 1)


class Client:
    """Requests to one daemon."""

    def __init__(self, port: int, options: argparse.Namespace) -> None:
        self.port = port
        self.options = options

    def answer(self, number: int) -> Answer:
        """One streamed answer to prompt `number`."""
        begun = time.perf_counter()
        times, last = [], {}
        for last in self.records("/api/generate", self.request(number)):  # noqa: B007
            times.append(time.perf_counter() - begun)
        return Answer(times[0], times[-1], last["eval_count"])

    def request(self, number: int) -> dict[str, Any]:
        """A greedy request of a fixed length; a pair may end it sooner."""
        wanted = {"temperature": 0, "num_predict": self.options.tokens}
        return {
            "model": self.options.model,
            "prompt": PROMPT.format(number=number),
            "draft": self.options.draft,
            "options": wanted,
        }

    def records(self, path: str, body: object) -> Iterator[dict[str, Any]]:
        """Records of an answer as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", path, json.dumps(body), JSON)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        for line in response:
            record = json.loads(line)
            assert "error" not in record, record
            yield record
        connection.close()


@contextmanager
def daemon(options: argparse.Namespace, home: Path) -> Iterator[int]:
    """A daemon on `home`; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = {
        "GEMMA_HOME": str(home),
        "GEMMA_HOST": f"127.0.0.1:{port}",
        "GEMMA_NUM_PARALLEL": str(max(options.streams)),
        "GEMMA_QUANTIZE": options.quantize,
        "GEMMA_DEVICE": options.device,
        "GEMMA_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "gemmad"], env=os.environ | settings)
    try:
        _await_port(port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _await_port(port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit("the daemon did not start")


def streams(client: Client, count: int) -> float:
    """Aggregate tokens a second of `count` answers asked for at once."""
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(client.answer(n))) for n in range(count)
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answer.tokens for answer in answers) / (time.perf_counter() - begun)


def cold_and_warm(client: Client) -> dict[str, Any]:
    """First tokens: after a load without, then with a spare that has waited; then when loaded."""
    unload = {"model": client.options.model, "keep_alive": 0, "stream": False}
    colds = []
    for wait_s in (0.0, client.options.spare_wait):
        list(client.records("/api/generate", unload))
        time.sleep(wait_s)
        colds.append(client.answer(0).first_s)
    warm = [client.answer(number) for number in range(client.options.repeats + 1)][1:]
    return {
        "cold_first_s": round(colds[0], 3),
        "spare_first_s": round(colds[1], 3),
        "warm_first_ms": round(1e3 * statistics.median(a.first_s for a in warm), 2),
        "between_ms": round(statistics.median(a.between_ms for a in warm), 3),
    }


def engine_ms(options: argparse.Namespace) -> float:
    """Milliseconds a token of the same prompts in this process: the built-in pair alone."""
    from gemmad.wire import Generate, Load, Message, PairFiles, Sampling
    from gemmarunner.__main__ import Composer
    from gemmarunner.engine.events import EngineRequest, Finished

    pair = ROOT / "modelfiles/gemmamodelfiles/nano"
    target, drafter = (
        {path.name: str(path) for path in (pair / part).iterdir()} for part in ("target", "drafter")
    )
    files = PairFiles(target=target, drafter=drafter)
    served = Composer().compose(Load(files=files, device=options.device), lambda *_: None)
    times = []
    for number in (*range(6), *range(1, options.repeats + 1)):  # the daemon had learned as much
        message = Message(role="user", content=PROMPT.format(number=number))
        prompt = served.writer.write(Generate(id=number, messages=(message,)))
        sampling: Any = Sampling(temperature=0.0, num_predict=options.tokens)
        served.engine.add(EngineRequest(number, prompt.tokens, sampling, options.draft))
        while served.engine.has_work:
            for event in served.engine.step():
                if isinstance(event, Finished):
                    times.append(event.eval_ns / 1e6 / max(1, event.eval_tokens - 1))
    return statistics.median(times[6:])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, from one daemon."""
    result: dict[str, Any] = {"model": options.model, "draft": options.draft}
    with tempfile.TemporaryDirectory() as home, daemon(options, Path(home)) as port:
        client = Client(port, options)
        list(client.records("/api/pull", {"model": options.model}))
        client.answer(0)
        result |= cold_and_warm(client)
        plain = None
        for count in options.streams:
            rate = statistics.median(streams(client, count) for _ in range(options.repeats))
            plain = plain or rate
            result[f"tokens_per_s_{count}"] = round(rate, 1)
            result[f"ratio_{count}"] = round(rate / plain, 2)
    if options.model == "nano":
        result["engine_ms"] = round(engine_ms(options), 3)
        result["api_over_engine"] = round(result["between_ms"] / result["engine_ms"], 3)
    return result


def read_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--draft", default="auto", help="auto, off or a depth")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quantize", default="none", choices=("none", "int8", "int4"))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--spare-wait", type=float, default=12.0, help="seconds until a spare has prepared"
    )
    parser.add_argument(
        "--streams", default="1,2,4,8,16", type=lambda text: [int(n) for n in text.split(",")]
    )
    options = parser.parse_args(argv)
    if options.draft.isdecimal():
        options.draft = int(options.draft)
    return options


if __name__ == "__main__":
    print(json.dumps(measure(read_options())))
