"""The CPU's table of a pair: ours and llama.cpp's programs in turns, on the same cores.

    PYTHONPATH=daemon:modelfiles:. python -m tests.bench.cpu_table --shape e2b --cores 0,1 \
        --gguf bf16=e2b.gguf --gguf q8_0=e2b-q8.gguf --gguf q4_0=e2b-q4.gguf --draft-gguf mtp.gguf

A JSON line a format: tokens/s of a prompt, of plain decoding and with drafts at the wanted
acceptance, ours and llama.cpp's (where its programs are on the PATH), and what a step of four rows
costs against one. Medians over the turns. A round's time is measured and its tokens are what the
rates promise, for both, so that luck does not count. What is not made here (q4_k_m) is read from
its file.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from gemmarunner.engine.kvcache import KVCache
from tests.bench import shapes
from tests.bench.decode_cpu import (
    BYTES_PER_WEIGHT,
    CpuPair,
    build_pair,
    decode,
    prefill,
    read_bandwidth,
)
from tests.bench.peers import complete, llama_server

_SLACK = 64
_CHUNK = 256
_CPU = torch.device("cpu")
_STEPS = 6
_LLAMA_PROMPT = 128  # its rate is that of longer ones


def main() -> None:
    """Prints a line for each format."""
    options = _options()
    for weights, gguf in options.gguf:
        begun = time.perf_counter()
        pair = build_pair(options.shape, weights if weights in BYTES_PER_WEIGHT else gguf, True)
        built = time.perf_counter() - begun
        _pin(options.cores)
        print(
            json.dumps(_table(pair, weights, gguf, options) | {"build_s": round(built)}), flush=True
        )
        del pair
        _pin(options.all_cores)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=shapes.SHAPES, default="e2b")
    parser.add_argument("--gguf", action="append", default=[], type=_named, help="WEIGHTS=FILE")
    parser.add_argument("--draft-gguf", help="the drafter for llama-server")
    parser.add_argument("--accept", default="0.80,0.55,0.40", help="unconditional, by position")
    parser.add_argument("--cores", default=_cores(), type=_numbers)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.set_defaults(all_cores=_cores())
    return parser.parse_args()


def _named(text: str) -> tuple[str, str]:
    weights, _, path = text.partition("=")
    return weights, path


def _numbers(text: str) -> set[int]:
    return {int(number) for number in text.split(",")}


def _cores() -> set[int]:
    return os.sched_getaffinity(0)


def _pin(cores: set[int]) -> None:
    """Every thread of this process, and what it starts, runs on these cores and counts them."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(task.name), cores)
    torch.set_num_threads(len(cores))


def _table(pair: CpuPair, weights: str, gguf: str, options: argparse.Namespace) -> dict[str, Any]:
    ours = _Ours(pair, options)
    figures = {"weights": weights, "read_gb_s": round(read_bandwidth() / 1e9, 1)}
    figures["prompt"] = round(options.prompt / ours.prefill_s, 1)
    measures: dict[str, Callable[[], float]] = {
        "plain": ours.plain, "one_row_ms": ours.one_row, "four_rows_ms": ours.four_rows,
        "drafted": ours.drafted,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        if gguf and shutil.which("llama-bench"):
            figures["llama_prompt"] = round(_llama_bench(gguf, options, _LLAMA_PROMPT, 0), 1)
            measures["llama_plain"] = lambda: _llama_bench(gguf, options, 0, options.tokens)
        if gguf and options.draft_gguf and shutil.which("llama-server"):
            ask = stack.enter_context(_drafting_server(gguf, options))
            ask()  # reads the prompt, which later answers find cached
            measures["llama_drafted"] = ask
        taken = _in_turns(measures, options.turns)
    return (
        figures
        | {name: round(statistics.median(them), 2) for name, them in taken.items()}
        | _ratios(taken)
    )


def _in_turns(measures: dict[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(turns):
        for name, measure in measures.items():
            taken[name].append(measure())
    return taken


def _ratios(taken: dict[str, list[float]]) -> dict[str, float]:
    """Medians of each turn's ratio, of those that were measured."""
    wanted = {
        "plain_to_llama": ("plain", "llama_plain"),
        "rows_4_to_1": ("four_rows_ms", "one_row_ms"),
        "drafted_to_plain": ("drafted", "plain"),
        "drafted_to_llama": ("drafted", "llama_drafted"),
        "llama_drafted_to_plain": ("llama_drafted", "llama_plain"),
    }
    return {
        name: round(
            statistics.median(a / b for a, b in zip(taken[over], taken[under], strict=True)), 3
        )
        for name, (over, under) in wanted.items()
        if over in taken and under in taken
    }


class _Ours:
    """Our pair behind a prompt of its own, which is read here."""

    def __init__(self, pair: CpuPair, options: argparse.Namespace) -> None:
        self._pair = pair
        self._accept = _rates(options)
        self._tokens = options.tokens
        rows = options.prompt + options.tokens + _SLACK
        self._cache = KVCache(pair.target.config, rows, _CHUNK, _CPU, torch.float32)
        self.prefill_s = prefill(pair.target, self._cache, options.prompt)
        self._length = options.prompt

    def plain(self) -> float:
        """Tokens/s without drafts."""
        return 1 / self._round_s(0)

    def drafted(self) -> float:
        """Tokens/s with drafts at the wanted acceptance."""
        return _per_round(self._accept) / self._round_s(len(self._accept))

    def one_row(self) -> float:
        """Milliseconds of a step of one row."""
        return self._step_ms(1)

    def four_rows(self) -> float:
        """Milliseconds of a step of four rows."""
        return self._step_ms(4)

    def _round_s(self, depth: int) -> float:
        self._cache.truncate(self._length)
        seconds, _ = decode(self._pair, self._cache, depth, self._accept, self._tokens)
        return statistics.median(seconds)

    @torch.inference_mode()
    def _step_ms(self, rows: int) -> float:
        self._cache.truncate(self._length)
        seconds = []
        for step in range(_STEPS):
            begun = time.perf_counter()
            hidden = self._pair.target.forward(
                torch.arange(10 + step, 10 + step + rows), self._cache
            )
            self._pair.target.logits(hidden)
            seconds.append(time.perf_counter() - begun)
            self._cache.truncate(self._length)
        return 1e3 * statistics.median(seconds[1:])


def _rates(options: argparse.Namespace) -> list[float]:
    return [float(rate) for rate in options.accept.split(",")]


def _per_round(accept: list[float]) -> float:
    return 1 + sum(accept)


def _llama_bench(gguf: str, options: argparse.Namespace, prompt: int, tokens: int) -> float:
    """Tokens/s that llama-bench reports."""
    sizes = ["-p", str(prompt), "-n", str(tokens), "-r", "1" if prompt else "2"]
    threads = ["-t", str(len(options.cores))]
    run = subprocess.run(
        ["llama-bench", "-m", gguf, *sizes, *threads, "-o", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(json.loads(run.stdout)[0]["avg_ts"])


@contextlib.contextmanager
def _drafting_server(gguf: str, options: argparse.Namespace) -> Iterator[Callable[[], float]]:
    """Tokens/s of one answer of a llama-server that drafts; it is asked as often as called."""
    accept = _rates(options)
    command = ["llama-server", "-m", gguf, "-t", str(len(options.cores)), "-c", "4096", "-np", "1"]
    command += ["-md", options.draft_gguf, "--spec-type", "draft-mtp"]
    command += ["--spec-draft-n-max", str(len(accept)), "--spec-synth-rates", options.accept]
    ids = torch.arange(10, 10 + options.prompt).tolist()
    with llama_server(command) as port:

        def ask() -> float:
            timings = complete(port, ids, 3 * options.tokens, cached=True)
            rounds = timings["draft_n"] / len(accept)
            return _per_round(accept) * rounds / timings["predicted_ms"] * 1e3

        yield ask


if __name__ == "__main__":
    main()
