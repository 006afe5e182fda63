"""Measures a real daemon through its HTTP API, in turns with the same engine in this process.

    PYTHONPATH=daemon:client:modelfiles:. python -m tests.bench.server --shape e4b --drafts off,4

starts daemons on a home of its own (nothing of the user's is touched) and prints a JSON line a
step: the checkpoint's reading by `cat`, loads and first tokens cold and with a spare, the engine's
own load by phases, then for each number of streams both sides and their ratios. `nano` is the
shipped pair; other shapes (and `--synthetic`) get random weights written to `--dir`.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.asking import PROMPT, Answer, Client

ROOT = Path(__file__).parents[2]
START_S = 60.0
TAIL_BYTES = 2500
_MODULES = ("daemon", "client", "modelfiles", ".")


@contextmanager
def daemon(
    options: argparse.Namespace,
    home: Path,
    *,
    spare: bool,
    program: Sequence[str] = ("-m", "gemmad"),
) -> Iterator[Client]:
    """A client of a new daemon on `home`, which has the model; on failure its logs are printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = {
        "GEMMA_HOME": str(home),
        "GEMMA_HOST": f"127.0.0.1:{port}",
        "GEMMA_NUM_PARALLEL": str(max(options.streams)),
        "GEMMA_NUM_CTX": str(options.num_ctx),
        "GEMMA_QUANTIZE": options.quantize,
        "GEMMA_DEVICE": options.device,
        "GEMMA_THREADS": str(options.threads),
        "GEMMA_SPARE": "1" if spare else "0",
        "GEMMA_LOG_LEVEL": "warning",
        "PYTHONPATH": _python_path(),
    }
    process = subprocess.Popen([sys.executable, *program], env=os.environ | settings)
    try:
        _await_port(port, process)
        client = Client(port, options.model, options.tokens)
        if options.pair is None:
            client.post("/api/pull")
        yield client
    except BaseException:
        _print_logs(home)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _python_path() -> str:
    ours = [str(ROOT / module) for module in _MODULES]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([*ours, *map(os.path.abspath, filter(None, given))])


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit("the daemon did not start")


def _print_logs(home: Path) -> None:
    for path in sorted((home / "logs").glob("*.log")):
        print(f"--- {path.name}\n{path.read_text(errors='replace')[-TAIL_BYTES:]}", flush=True)


class InProcess:
    """The engine on the same files in this process: what the API is compared with."""

    def __init__(self, options: argparse.Namespace) -> None:
        from gemmad.wire import Load, PairFiles
        from gemmarunner.__main__ import Composer

        pair = options.pair or ROOT / "modelfiles/gemmamodelfiles/nano"
        target, drafter = (
            {path.name: str(path) for path in (pair / part).iterdir()}
            for part in ("target", "drafter")
        )
        self._spans: dict[str, list[float]] = {}
        self._tokens = options.tokens
        composer = Composer()
        composer.prepare()
        load = Load(
            files=PairFiles(target=target, drafter=drafter),
            device=options.device,
            num_ctx=options.num_ctx,
            num_parallel=max(options.streams),
            threads=options.threads,
            quantize=None if options.quantize == "none" else options.quantize,
        )
        self._served = composer.compose(load, self._report)

    def _report(self, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self._spans.setdefault(phase, [now, now])[1] = now

    def load_figures(self, size: int) -> dict[str, Any]:
        """Seconds of the load and its phases; MB/s of the target's reading."""
        loaded = self._served.loaded
        phases = {f"{name}_s": round(end - begin, 3) for name, (begin, end) in self._spans.items()}
        target_s = max(phases.get("target_s", 0.0), 1e-6)
        return {
            "device": loaded.device,
            "dtype": loaded.dtype,
            "drafter": loaded.drafter,
            "note": loaded.drafter_note,
            "load_s": round(loaded.load_ns / 1e9, 3),
            **phases,
            "read_mb_s": round(size / target_s / 1e6),
        }

    def answers(self, numbers: Sequence[int], draft: str | int) -> list[Answer]:
        """Answers to the prompts of these numbers, asked for at once."""
        from gemmad.wire import Generate, Message, Sampling
        from gemmarunner.engine.events import EngineRequest, Finished, Tokens
        from gemmarunner.serving import engine_sampling

        engine: Any = self._served.engine
        sampling = engine_sampling(Sampling(temperature=0.0, num_predict=self._tokens))
        prompts = []
        for number in numbers:
            message = Message(role="user", content=PROMPT.format(number=number))
            request = Generate(id=number, messages=(message,))
            prompts.append(self._served.writer.write(request).tokens)
        begun = time.perf_counter()
        for number, prompt in zip(numbers, prompts, strict=True):
            engine.add(EngineRequest(number, prompt, sampling, draft))  # type: ignore[arg-type]
        firsts: dict[int, float] = {}
        found = []
        while engine.has_work:
            for event in engine.step():
                now = time.perf_counter() - begun
                if isinstance(event, Tokens):
                    firsts.setdefault(event.id, now)
                elif isinstance(event, Finished):
                    rounds = getattr(event.draft, "rounds", 0)
                    first = firsts.get(event.id, now)
                    prompt_s = event.prompt_ns / 1e9
                    found.append(Answer(first, now, event.eval_tokens, rounds, prompt_s=prompt_s))
                else:
                    raise SystemExit(f"the engine failed: {event}")
        return found


def figures(runs: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """Medians over the repeats of one side."""
    every = [answer for run in runs for answer in run]
    rates = [sum(a.tokens for a in run) / max(a.end_s for a in run) for run in runs]
    rounds = sum(a.rounds for a in every)
    return {
        "first_ms": round(1e3 * statistics.median(a.first_s for a in every), 3),
        "first_ms_by_turn": [round(1e3 * statistics.median(a.first_s for a in r), 1) for r in runs],
        "outside_ms": round(1e3 * statistics.median(a.first_s - a.prompt_s for a in every), 3),
        "between_ms_by_turn": [round(statistics.median(a.between_ms for a in r), 3) for r in runs],
        "between_ms": round(statistics.median(a.between_ms for a in every), 4),
        "tokens_per_s": round(statistics.median(rates), 1),
        "tokens_per_round": round(sum(a.tokens for a in every) / rounds, 3) if rounds else 0.0,
    }


def compare(
    client: Client, engine: InProcess, options: argparse.Namespace, draft: str | int
) -> None:
    """A line a number of streams: both sides in turns, after one uncounted turn each."""
    number = 1000
    for count in options.streams:
        api, own = [], []
        for _ in range(options.repeats + 1):
            numbers = range(number, number := number + count)
            api.append(client.answers(numbers, draft))
            own.append(engine.answers(numbers, draft))
        ours, its = figures(api[1:]), figures(own[1:])
        say(
            "streams",
            streams=count,
            draft=draft,
            api=ours,
            engine=its,
            per_token_ratio=round(ours["between_ms"] / max(its["between_ms"], 1e-9), 4),
            rate_ratio=round(ours["tokens_per_s"] / its["tokens_per_s"], 4),
            first_more_ms=round(ours["first_ms"] - its["first_ms"], 3),
        )


def cold(client: Client, step: str) -> None:
    """The first answer of an unloaded model: first token and load as the daemon tells it."""
    answer = client.answer(0, "off")
    say(step, first_s=round(answer.first_s, 3), load_s=round(answer.load_s, 3))


def unload(client: Client) -> None:
    """The model is not loaded."""
    client.post("/api/generate", keep_alive=0, stream=False)


def say(step: str, **values: object) -> None:
    """One JSON line."""
    print(json.dumps({"step": step, **values}), flush=True)


def prepare(options: argparse.Namespace, directory: Path, home: Path) -> int:
    """The model is where daemon and engine find it; bytes of its target's weights."""
    options.pair = None
    weights = ROOT / "modelfiles/gemmamodelfiles/nano/target/model.safetensors"
    if options.shape != "nano" or options.synthetic:
        from tests.bench.synthetic_checkpoint import install, write_pair

        begun = time.perf_counter()
        options.pair = write_pair(options.shape, directory / "pair")
        install(options.pair, home, options.model)
        weights = options.pair / "target/model.safetensors"
        say("written", seconds=round(time.perf_counter() - begun, 2))
        release_device()
    size = weights.stat().st_size
    for step in ("cat", "cat_again"):
        begun = time.perf_counter()
        subprocess.run(["sh", "-c", f"cat '{weights}' > /dev/null"], check=True)
        say(step, mb=size >> 20, mb_s=round(size / (time.perf_counter() - begun) / 1e6))
    return size


def release_device() -> None:
    """Memory that making the weights took on a GPU is free for whoever loads them."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure(options: argparse.Namespace, directory: Path) -> None:
    """Everything, a JSON line a step."""
    home = directory / "home"
    size = prepare(options, directory, home)
    if not options.streams_only:
        measure_cold(options, home)
    with daemon(options, home, spare=not options.streams_only) as client:
        client.answer(0, "off")
        begun = time.monotonic()
        engine = InProcess(options)
        say("engine_load", **engine.load_figures(size))
        for draft in options.drafts:
            compare(client, engine, options, draft)
        if options.streams_only:
            return
        time.sleep(max(0.0, options.spare_wait - (time.monotonic() - begun)))
        unload(client)
        cold(client, "cold_with_spare")


def measure_cold(options: argparse.Namespace, home: Path) -> None:
    """Loads without a spare runner; the first builds kernels where there are any."""
    with daemon(options, home, spare=False) as client:
        for step in ("first_load", "cold"):
            cold(client, step)
            unload(client)


def read_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="nano", help="nano, e2b, e4b, 12b, 26b or 31b")
    parser.add_argument("--synthetic", action="store_true", help="random weights for nano, too")
    parser.add_argument("--streams-only", action="store_true", help="no loads, only streams")
    parser.add_argument("--dir", type=Path, default=None, help="where the checkpoint is written")
    parser.add_argument("--drafts", default="off,auto", help="each of off, auto or a depth")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--num-ctx", type=int, default=4096)
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
    modes = options.drafts.split(",")
    options.drafts = [int(mode) if mode.isdecimal() else mode for mode in modes]
    options.model = "nano" if options.shape == "nano" and not options.synthetic else "bench"
    return options


def main() -> None:
    """Measures in a directory that is gone afterwards."""
    options = read_options()
    directory = Path(tempfile.mkdtemp(prefix="gemma-bench-", dir=options.dir))
    try:
        measure(options, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.flush()
    os._exit(0)  # the engine's template process and torch's threads have nothing to save


if __name__ == "__main__":
    main()
