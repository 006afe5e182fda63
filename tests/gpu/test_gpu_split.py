"""A pair split over two GPUs says what one GPU says; its memory and speed beside the estimate.

    python -m tests.gpu.test_gpu_split [SHAPE:BACKEND ...]

prints a line of figures for each case and one that says whether all is well; shapes are nano (its
own weights), e2b, 12b (random ones), ...; backends plain, fused, and files: what a runner builds of
files on the disk. Each case runs in a process of its own: what the runtime takes of each GPU is
part of what is measured. `--devices cpu:0,cpu` runs nano:plain here, where two names stand for two
devices.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineRequest, Tokens
from gemmarunner.engine.request import Sampling
from tests.bench import shapes
from tests.bench.estimate import _WRITE
from tests.bench.skills import files

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
CASES = ("nano:plain", "nano:fused", "e2b:plain", "e2b:fused", "12b:plain", "12b:fused")
DEVICES = ("cuda:0", "cuda:1")
NUM_CTX, DEPTH, TOKENS = 4096, 4, 64
PROMPT = [10 + (7 * n) % 4000 for n in range(300)]
SAMPLINGS = {"greedy": Sampling(temperature=0.0), "sampled": Sampling(seed=7)}
_MIB = 1 << 20


class Case(NamedTuple):
    """What is built and compared."""

    shape: str
    backend: str  # plain | fused | files
    devices: tuple[str, str]

    @property
    def dtype(self) -> torch.dtype:
        """As a runner would choose."""
        small = self.shape == "nano" and self.backend == "plain"
        return torch.float32 if small else torch.bfloat16


def split_of(case: Case) -> tuple[tuple[str, int], ...]:
    """Half of the layers, or as many of the first as may be elsewhere."""
    config = shapes.target_config(case.shape)
    count = len(config.layers)
    before = min(count // 2, config.sliding_donor, config.full_donor)
    return (case.devices[0], before), (case.devices[1], count - before)


def backend_of(case: Case, split: tuple[tuple[str, int], ...]) -> Any:
    """A warm pair, on the last device but for the layers that `split` puts elsewhere."""
    make = {"plain": plain, "fused": fused, "files": loaded}[case.backend]
    return make(case, torch.device(case.devices[1]), split)


def plain(case: Case, device: torch.device, split: tuple[tuple[str, int], ...]) -> Any:
    """On torch's own operators."""
    from gemmarunner.engine.eager import EagerBackend
    from gemmarunner.models.drafter import Drafter
    from gemmarunner.models.loader import load_drafter, load_target
    from gemmarunner.models.target import Target

    if case.shape == "nano":
        target = load_target(files("target"), str(device), case.dtype, split=split)
        drafter = load_drafter(files("drafter"), str(device), case.dtype)
    else:
        made = shapes.synthetic_target(case.shape, device, case.dtype)
        config = shapes.target_config(case.shape)
        target = Target(config, made.take, device, case.dtype, split=split)
        drafts = shapes.take(case.shape, device, case.dtype, 1)
        drafter = Drafter(shapes.drafter_config(case.shape), drafts, device, case.dtype)
    drafter.bind(target)
    return _warm(EagerBackend(target, drafter, num_ctx=NUM_CTX, max_depth=8))


def fused(case: Case, device: torch.device, split: tuple[tuple[str, int], ...]) -> Any:
    """On fused kernels."""
    from gemmarunner.cuda.backend import CudaBackend
    from gemmarunner.cuda.loading import load_cuda_target
    from gemmarunner.cuda.target import CudaTarget

    if case.shape == "nano":
        target = load_cuda_target(files("target"), str(device), case.dtype, split=split)
    else:
        made = shapes.synthetic_target(case.shape, device, case.dtype)
        config = shapes.target_config(case.shape)
        target = CudaTarget(config, made.take, device, case.dtype, split=split)
    drafter = drafter_of(case, target)
    return _warm(CudaBackend(target, drafter, num_ctx=NUM_CTX, max_depth=8))


def loaded(case: Case, device: torch.device, split: tuple[tuple[str, int], ...]) -> Any:
    """As a runner does it, read ahead by way of the last device; it says what is where."""
    from gemmad.wire import Load, PairFiles
    from gemmarunner.backends import Place, build

    with tempfile.TemporaryDirectory() as place:
        halves = _halves(case.shape, Path(place))
        target, drafter = ({name: str(path) for name, path in half.items()} for half in halves)
        files = PairFiles(target=target, drafter=drafter)
        load = Load(files=files, num_ctx=NUM_CTX, split=split)
        built = build(load, halves[0], Place(str(device), case.dtype), lambda *_: None)
    parts = [
        [part.device, part.target_bytes // _MIB, part.kv_bytes // _MIB] for part in built.parts
    ]
    print(json.dumps({"parts_mib": parts, "notes": built.notes}), file=sys.stderr)
    return built.backend


def _halves(shape: str, place: Path) -> list[dict[str, Path]]:
    """Files of target and drafter."""
    if shape == "nano":
        return [files("target"), files("drafter")]
    # in a process of its own: writing them uses the GPU
    subprocess.run([sys.executable, "-c", _WRITE, shape, str(place)], check=True)
    return [{f.name: f for f in (place / half).iterdir()} for half in ("target", "drafter")]


def _warm(backend: Any) -> Any:
    backend.warm(lambda *_: None)
    return backend


def drafter_of(case: Case, target: Any) -> Any:
    """A drafter on fused kernels."""
    from gemmarunner.cuda.drafter import CudaDrafter
    from gemmarunner.cuda.loading import load_cuda_drafter

    if case.shape == "nano":
        return load_cuda_drafter(files("drafter"), target)
    drafts = shapes.take(case.shape, target.device, case.dtype, 1)
    return CudaDrafter(shapes.drafter_config(case.shape), drafts, target)


def reattached(case: Case, backend: Any) -> dict[str, Any]:
    """What a fused pair says without its drafter, and once that is back."""
    if case.backend != "fused":
        return {}
    freed = backend.detach()
    without = answers(backend, DEPTH)
    for _ in backend.attach(drafter_of(case, backend._target)):
        pass
    back = answers(backend, DEPTH)
    return {"detach_mib": freed // _MIB, "without": without.words, "back": back.words}


def logits_of(backend: Any) -> Tensor:
    """After the prompt."""
    backend.truncate(0, 0)
    for start in range(0, len(PROMPT), backend.max_rows):
        backend.prefill(0, PROMPT[start : start + backend.max_rows])
    if hasattr(backend, "_pair"):
        found = backend._pair.target.logits(backend._hidden[0])
    else:
        found = backend._finish(backend._tails.pop(0)).logits.clone()
    return found.float().cpu()


class Run(NamedTuple):
    """Words by sampling, and milliseconds a token of the last answer."""

    words: dict[str, list[int]]
    ms: float


def answers(backend: Any, depth: int) -> Run:
    """One answer of each sampling."""
    words, ms = {}, 0.0
    for name, sampling in SAMPLINGS.items():
        engine = Engine(backend, eos_ids=frozenset(), prefix_bytes=0)
        engine.add(EngineRequest(1, list(PROMPT), sampling, depth, TOKENS))
        found: list[int] = []
        begun = 0.0
        while engine.has_work:
            for event in engine.step():
                found += event.tokens if isinstance(event, Tokens) else []
            begun = begun or time.perf_counter()  # the prompt was read
        ms = 1e3 * (time.perf_counter() - begun) / max(1, len(found) - 1)
        words[name] = found
        backend.truncate(0, 0)
    return Run(words, round(ms, 3))


def run(case: Case) -> dict[str, Any]:
    """The figures of one case, in this process: split first, whose memory is measured."""
    before = [_used(device) for device in case.devices]
    if case.devices[1].startswith("cuda"):
        torch.cuda.set_device(case.devices[1])  # as a runner does
    split = split_of(case)
    backend = backend_of(case, split)
    logits = logits_of(backend)
    told = {depth: answers(backend, depth) for depth in (0, DEPTH)}
    took = [_used(device) - was for device, was in zip(case.devices, before, strict=True)]
    moved = reattached(case, backend)
    backend.close()
    del backend
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    whole = backend_of(case, ())
    expected = logits_of(whole)
    alone = {depth: answers(whole, depth) for depth in (0, DEPTH)}
    apart = (logits - expected).abs().max().item()
    figures = {
        "case": f"{case.shape}:{case.backend}",
        "split": split,
        "logits_apart": round(apart, 6),
        "logits_range": round((expected.max() - expected.min()).item(), 3),
        "same_words": told[0].words == alone[0].words,
        "same_words_drafted": told[DEPTH].words == alone[DEPTH].words,
        "greedy_drafted_as_plain": told[DEPTH].words["greedy"] == told[0].words["greedy"],
        "same_words_reattached": all(
            moved.pop(name, told[DEPTH].words) == told[DEPTH].words for name in ("without", "back")
        ),
        "ms_split": {depth: one.ms for depth, one in told.items()},
        "ms_one_gpu": {depth: one.ms for depth, one in alone.items()},
        "took_mib": [nbytes // _MIB for nbytes in took],
        **moved,
    }
    return figures | (_estimated(case, split, took) if all(took) else {})


def _estimated(
    case: Case, split: tuple[tuple[str, int], ...], took: list[int]
) -> dict[str, list[float]]:
    """What each device should take, in MiB, and how many times what it took that is."""
    from gemmad.memory import fused as fused_bytes
    from gemmad.memory.estimate import Setting
    from gemmad.memory.split import Deal, shares, split_bytes
    from tests.bench.estimate import pair_shape

    if case.shape != "nano" and case.backend != "files":
        fused_bytes.AHEAD_BYTES = 0  # nothing is read ahead of random weights
    setting = Setting(NUM_CTX, max_depth=8, fused=case.backend != "plain")
    found = split_bytes(pair_shape(case.shape), setting, case.devices)
    told = shares(found, Deal(*zip(*split, strict=True)))
    expected = [told[device].total for device in case.devices]
    ratios = [round(e / max(1, t), 3) for e, t in zip(expected, took, strict=True)]
    return {"estimated_mib": [nbytes // _MIB for nbytes in expected], "ratios": ratios}


def _used(device: str) -> int:
    """Bytes of a GPU that are taken, read without a context."""
    if not device.startswith("cuda"):
        return 0
    import pynvml

    pynvml.nvmlInit()
    visible = torch.cuda._raw_device_uuid_nvml() or []
    handle = pynvml.nvmlDeviceGetHandleByUUID(visible[torch.device(device).index or 0])
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def examined(case: str, devices: str = ",".join(DEVICES)) -> dict[str, Any]:
    """The figures of a case from a process of its own."""
    command = [sys.executable, "-m", "tests.gpu.test_gpu_split", "--one", case]
    done = subprocess.run([*command, "--devices", devices], capture_output=True, text=True)
    if done.returncode:
        return {"case": case, "error": done.stderr.strip().splitlines()[-12:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def wrong(found: dict[str, Any]) -> list[str]:
    """What must not be, of a case's figures: nothing."""
    if "error" in found:
        return ["it failed"]
    told = []
    if found["logits_apart"] > 0.02 * found["logits_range"]:
        told.append("logits differ")
    names = ("same_words", "same_words_drafted", "same_words_reattached")
    told += [name for name in names if not found[name]]
    if not all(0.9 <= ratio <= 1.35 for ratio in found.get("ratios", ())):
        told.append("an estimate is far off")
    return told


@pytest.mark.parametrize("case", CASES)
def test_split_pair_says_what_one_gpu_says(case: str) -> None:
    """Logits and words of both samplings, with drafts and without; memory as estimated."""
    found = examined(case)
    print(json.dumps(found))

    assert wrong(found) == []


def main() -> None:
    """Prints a line for each case, and whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--one", help="run this case in this process")
    parser.add_argument("--devices", default=",".join(DEVICES))
    options = parser.parse_args()
    if options.one:
        shape, backend = options.one.split(":")
        first, last = options.devices.split(",")
        print(json.dumps(run(Case(shape, backend, (first, last)))), flush=True)
        return
    for case in options.cases:
        found = examined(case, options.devices)
        print(json.dumps(found), flush=True)
        print(f"{case}: {'; '.join(wrong(found)) or 'well'}", flush=True)


if __name__ == "__main__":
    main()
