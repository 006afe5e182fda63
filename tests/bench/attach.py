"""What taking a drafter out and putting it in again costs, in a real runner while it answers.

    python -m tests.bench.attach [--pair DIR] [--device auto] [--context 4096] [--rounds 5]

One JSON line: seconds of both (medians), bytes that the runner reported beside those that its
process has less and more, and the longest wait between two pieces of an answer, with switching and
without. DIR has target/ and drafter/; the default is the built-in pair.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from gemmad.runners.supervisor import Runner, RunnerSpec
from gemmad.wire import Generate, Load, Measured, PairFiles, Sampling
from tests.bench import shapes

_TOKENS = 1500
_BETWEEN_S = 0.5
_FIGURES = ("detach_s", "attach_s", "freed", "freed_said", "took", "took_said")


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, default=shapes.NANO)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(asyncio.run(run(options, Path(place) / "log"))))


async def run(options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """The figures of one pair."""
    halves = {
        kind: {f.name: str(f) for f in (options.pair / kind).iterdir() if f.is_file()}
        for kind in ("target", "drafter")
    }
    files = PairFiles(target=halves["target"], drafter=halves["drafter"])
    load = Load(files=files, num_ctx=options.context, device=options.device, prefix_bytes=0)
    runner = await Runner.start(
        RunnerSpec(load, log, "bench"), on_progress=lambda _: None, deadline_s=900
    )
    quiet_gap = await _answer(runner)
    figures: dict[str, list[float]] = {name: [] for name in _FIGURES}
    stop = asyncio.Event()
    answering = asyncio.create_task(_answers(runner, stop))
    before = await runner.measure()
    for _ in range(options.rounds):
        await _switch(runner, figures)
    stop.set()
    gap = await answering
    after = await runner.measure()
    loaded = runner.loaded
    await runner.stop()
    return {
        "device": loaded.device,
        "said_at_load": loaded.drafter_bytes,
        **{name: statistics.median(found) for name, found in figures.items()},
        "gap_s": round(gap, 4),
        "quiet_gap_s": round(quiet_gap, 4),
        "taken_before": _taken(before),
        "taken_after": _taken(after),
    }


async def _switch(runner: Runner, figures: dict[str, list[float]]) -> None:
    await asyncio.sleep(_BETWEEN_S)
    full = await runner.measure()
    started = time.perf_counter()
    reported = await runner.detach()
    figures["detach_s"].append(time.perf_counter() - started)
    lean = await runner.measure()
    figures["freed"].append(_taken(full) - _taken(lean))
    figures["freed_said"].append(reported)
    await asyncio.sleep(_BETWEEN_S)
    lean = await runner.measure()
    started = time.perf_counter()
    told = await runner.attach()
    figures["attach_s"].append(time.perf_counter() - started)
    figures["took"].append(_taken(await runner.measure()) - _taken(lean))
    figures["took_said"].append(told)


def _taken(measured: Measured) -> int:
    return measured.device_bytes or measured.host_bytes


async def _answers(runner: Runner, stop: asyncio.Event) -> float:
    longest = 0.0
    while not stop.is_set():
        longest = max(longest, await _answer(runner))
    return longest


async def _answer(runner: Runner) -> float:
    """The longest wait between two pieces of an answer of _TOKENS tokens."""
    sampling = Sampling(num_predict=_TOKENS, temperature=1.0, seed=1)
    request = Generate(id=runner.new_id(), prompt="Once upon a time", sampling=sampling)
    seen: list[float] = []
    async for _ in runner.generate(request):
        seen.append(time.perf_counter())
    return max(b - a for a, b in itertools.pairwise(seen))


if __name__ == "__main__":
    main()
