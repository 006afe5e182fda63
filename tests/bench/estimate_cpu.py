"""What estimates are worth on a CPU: a real runner's memory beside what it should take.

    python -m tests.bench.estimate_cpu --shape e2b --context 8192 --slots 1 [--quantize int8]

The pair is written in the published shape with random weights (E2B: 10 GB). Anonymous memory is
compared: pages of mapped files are the system's to drop. One JSON line.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import psutil

from gemmad.memory.estimate import Setting, estimate
from gemmad.memory.files import read_shape
from gemmad.memory.host import available_bytes, cpu_kind
from gemmad.runners.supervisor import Runner, RunnerSpec
from gemmad.wire import Generate, Load, PairFiles, Sampling
from tests.bench import shapes

_LOOK_S = 0.02
_ANSWER = 32  # tokens


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="nano")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--quantize", choices=("int8", "int4"))
    parser.add_argument("--pair", type=Path, help="a directory with target/ and drafter/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        pair = options.pair or _written(options.shape, Path(place) / "pair")
        print(json.dumps(asyncio.run(run(pair, options, Path(place) / "log"))))


def _written(shape: str, place: Path) -> Path:
    if shape == "nano":
        return shapes.NANO
    from tests.bench.synthetic_checkpoint import write_pair

    return write_pair(shape, place)


async def run(pair: Path, options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """The figures of one load."""
    halves = {
        kind: {f.name: str(f) for f in (pair / kind).iterdir()} for kind in ("target", "drafter")
    }
    files = PairFiles(target=halves["target"], drafter=halves["drafter"])
    how = {"quantize": options.quantize, "draft_quantize": options.quantize}
    setting = Setting(
        options.context, options.slots, kind="cpu", cpu=cpu_kind(), free=available_bytes(), **how
    )
    expected = estimate(read_shape(files), setting)
    load = Load(
        files=files, num_ctx=options.context, num_parallel=options.slots, device="cpu",
        prefix_bytes=0, **how,
    )  # fmt: skip
    peaks: list[int] = []
    watching = asyncio.create_task(_watch(peaks))
    runner = await Runner.start(
        RunnerSpec(load, log, "bench"), on_progress=lambda _: None, deadline_s=900
    )
    loaded = _memory(runner.pid)
    prompt = tuple(100 + n % 1000 for n in range(options.context - _ANSWER - 8))  # fills it
    await asyncio.gather(*(_ask(runner, prompt) for _ in range(options.slots)))
    watching.cancel()
    at_end = _memory(runner.pid)
    await runner.stop()
    names = ("target_weights", "drafter_weights", "kv", "drafter_state", "workspace", "host")
    measured = max(at_end["RssAnon"], *peaks)
    return {
        "shape": options.shape, "context": options.context, "slots": options.slots, **how,
        "estimate": expected.device, "measured": measured,
        "ratio": round(expected.device / measured, 3),
        "parts": {name: getattr(expected, name) for name in names}, "mapped": expected.mapped,
        "loaded": loaded, "end": at_end, "said": runner.loaded.target_bytes,
        "dtype": runner.loaded.dtype,
    }  # fmt: skip


async def _watch(peaks: list[int]) -> None:
    """Takes note of what a child has, from its first moment on."""
    me = psutil.Process()
    while True:
        with contextlib.suppress(psutil.Error, OSError, KeyError):
            peaks.extend(_memory(child.pid)["RssAnon"] for child in me.children())
        await asyncio.sleep(_LOOK_S)


async def _ask(runner: Runner, prompt: tuple[int, ...]) -> None:
    sampling = Sampling(num_predict=_ANSWER)
    request = Generate(id=runner.new_id(), prompt="a", context=prompt, sampling=sampling)
    async for _ in runner.generate(request):
        pass


def _memory(pid: int) -> dict[str, int]:
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("RssAnon", "RssFile", "RssShmem", "VmHWM"):
            found[name] = int(rest.split()[0]) << 10
    return found


if __name__ == "__main__":
    main()
