"""What estimates of memory are worth: each shape's decoder on the GPU, beside what it should take.

    python -m tests.bench.estimate --cases e2b:bf16:8192:1,e4b:int4:32768:4 > estimates.jsonl

A case is shape:weights:context:slots, weights bf16, int8 or int4; with `:files` behind it, the pair
is written to the disk first and read as a runner reads it. Each case runs in a process of its own:
what the runtime itself takes is part of what is measured. One JSON line a case: `estimate`,
`measured` (the most that the device lacked, while loading or after), their ratio, and the steps.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.bench import shapes, synthetic_checkpoint

CASES = (
    "nano:bf16:8192:1,nano:bf16:8192:4,e2b:bf16:8192:1,e2b:bf16:131072:4,e2b:int4:8192:1:files,"
    "e4b:bf16:8192:1,e4b:int8:32768:4,12b:bf16:65536:4,12b:int4:32768:1,"
    "26b:bf16:8192:1,26b:int4:32768:2,31b:bf16:32768:4,31b:int4:131072:1"
)
_DEPTH = 8
_SEED = 2
_DEVICE = torch.device("cuda")
_WRITE = """import sys; from pathlib import Path
from tests.bench.synthetic_checkpoint import write_pair
write_pair(sys.argv[1], Path(sys.argv[2]))"""


def main() -> None:
    """Prints a JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--one", help="run this case in this process")
    parser.add_argument("--no-drafter", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, drafts=not options.no_drafter)), flush=True)
        return
    for case in options.cases.split(","):
        print(json.dumps(_apart(case, options.no_drafter)), flush=True)


def _apart(case: str, no_drafter: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.estimate", "--one", case]
    done = subprocess.run(
        [*command, *(["--no-drafter"] if no_drafter else [])], capture_output=True, text=True
    )
    if done.returncode:
        return {"case": case, "error": done.stderr.strip().splitlines()[-1:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(case: str, *, drafts: bool = True) -> dict[str, Any]:
    """The figures of one case, in this process."""
    from gemmad.memory import fused
    from gemmad.memory.estimate import Setting, estimate

    shape, weights, context, slots, *files = case.split(":")
    quantize: Any = None if weights == "bf16" else weights
    setting = Setting(int(context), int(slots), _DEPTH, drafter=drafts, quantize=quantize)
    if not files:
        fused.AHEAD_BYTES = 0  # nothing is read ahead
    expected = estimate(pair_shape(shape), setting)
    before = _used()  # no context is there yet
    torch.cuda.init()
    torch.zeros(1, device=_DEVICE)
    steps = {"context": _used() - before}
    build = _build_files if files else _build_synthetic
    target, drafter = build(shape, weights, drafts)
    steps["weights"] = torch.cuda.memory_allocated()
    steps["loading_allocated"] = torch.cuda.max_memory_allocated()
    steps["loading"] = steps["context"] + torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    steps |= dict(_run(target, drafter, setting, before))
    measured = max(steps["loading"], steps["end"])
    steps["beside"] = steps["end"] - steps["end_reserved"]  # the runtime's own, and graphs'
    names = ("target_weights", "drafter_weights", "kv", "workspace", "graphs", "host")
    return {
        "case": case,
        "estimate": int(expected.device),
        "measured": measured,
        "ratio": round(expected.device / max(1, measured), 4),
        "parts": {name: int(getattr(expected, name)) for name in names},
        "steps": steps,
        "rss": _rss(),
    }


def pair_shape(shape: str) -> Any:
    """A pair's shape as its files' headers would give it."""
    from gemmad.memory.files import hf_shape
    from gemmad.memory.shapes import PairShape, Tensor

    def tensors(found: dict[str, tuple[int, ...]]) -> list[Tensor]:
        ids = "token_ordering"
        return [Tensor(n, "I64" if n.endswith(ids) else "BF16", s) for n, s in found.items()]

    return PairShape(
        hf_shape(
            shapes.target_json(shape),
            tensors(synthetic_checkpoint.target_shapes(shape)),
            is_drafter=False,
        ),
        hf_shape(
            shapes.drafter_json(shape),
            tensors(synthetic_checkpoint.drafter_shapes(shape)),
            is_drafter=True,
        ),
    )


def _build_synthetic(shape: str, weights: str, drafts: bool) -> tuple[Any, Any]:
    from tests.bench.decode import build_pair

    target, drafter, _ = build_pair(shape, weights, _DEVICE, drafts)
    return target, drafter


def _build_files(shape: str, weights: str, drafts: bool) -> tuple[Any, Any]:
    from gemmarunner.cuda.loading import load_cuda_drafter, load_cuda_target
    from gemmarunner.models.packing import packer

    with tempfile.TemporaryDirectory() as place:
        pair = Path(place) / "pair"
        # in a process of its own: writing it uses the GPU
        subprocess.run([sys.executable, "-c", _WRITE, shape, str(pair)], check=True)
        halves = [{f.name: f for f in (pair / kind).iterdir()} for kind in ("target", "drafter")]
        pack = packer(None if weights == "bf16" else weights)
        target = load_cuda_target(halves[0], str(_DEVICE), pack=pack)
        drafter = load_cuda_drafter(halves[1], target) if drafts else None
    return target, drafter


def _run(target: Any, drafter: Any, setting: Any, before: int) -> Iterator[tuple[str, int]]:
    """The pair is warmed, reads a prompt in each slot and decodes; what each step took."""
    from gemmarunner.cuda.backend import CudaBackend

    yield "weights_used", _used() - before
    torch.cuda.reset_peak_memory_stats()
    backend = CudaBackend(
        target,
        drafter,
        num_ctx=setting.num_ctx,
        slots=setting.slots,
        max_depth=setting.max_depth,
    )
    yield "kv", backend.kv_bytes
    backend.warm(lambda *_: None)
    yield "warm", _used() - before
    yield "warm_allocated", torch.cuda.max_memory_allocated()
    yield "warm_reserved", torch.cuda.max_memory_reserved()
    _serve(backend, setting)
    yield "end_allocated", torch.cuda.max_memory_allocated()
    yield "end_reserved", torch.cuda.max_memory_reserved()
    yield "graphs", len(backend._graphs.shapes)
    yield "end", _used() - before


def _serve(backend: Any, setting: Any) -> None:
    """Every slot reads a prompt of two chunks, and all run a round at every depth."""
    from gemmarunner.engine.ports import RoundPlan
    from gemmarunner.engine.request import Sampling
    from gemmarunner.engine.sampling import Sampler

    sampler = Sampler(Sampling(seed=1), vocab=backend.vocab_size, device=_DEVICE)
    generator = torch.Generator().manual_seed(_SEED)
    count = min(2 * backend.max_rows, setting.num_ctx - 64)
    texts = []
    for slot in range(setting.slots):
        text: list[int] = torch.randint(
            10, backend.vocab_size, (count,), generator=generator
        ).tolist()
        for start in range(0, count, backend.max_rows):
            backend.prefill(slot, text[start : start + backend.max_rows])
        texts.append([*text, backend.first(slot, text, sampler)])
    for depth in range(backend.depth_limit(setting.slots) + 1):
        plans = [RoundPlan(slot, text, sampler, depth) for slot, text in enumerate(texts)]
        for text, new in zip(texts, backend.launch(plans).wait().tokens, strict=True):
            text.extend(new)


def _used() -> int:
    """Bytes of the GPU that are taken, by whomever; without a context where NVML is there."""
    try:
        import pynvml

        pynvml.nvmlInit()
        info = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
        return int(info.used)
    except ImportError:
        pass
    done = subprocess.run(
        ["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[0]) << 20


def _rss() -> dict[str, int]:
    """Of this process: anonymous, and of files."""
    found = {}
    with open("/proc/self/status") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("RssAnon", "RssFile", "RssShmem", "VmHWM"):
                found[name] = int(rest.split()[0]) << 10
    return found


if __name__ == "__main__":
    main()
