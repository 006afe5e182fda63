"""How fast a pair decodes in this process: one JSON line, synthetic weights in the real shapes.

    python -m tests.bench.decode --shape e4b --device cuda --weights bf16 --depth 4 \
        --accept 0.84,0.60,0.39,0.27 --batch 1 --prompt 512 --tokens 256

`--accept` injects unconditional acceptance by position: random weights accept nothing by
themselves. `--weights` other than bf16 are packed from bf16 when the model is made; on a CPU they
may also be a file of that shape.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from gemmarunner.models.packing import packer
from tests.bench import shapes

_WARM_ROUNDS = 8


def main() -> None:
    """Prints one JSON line."""
    options = _options()
    if options.device == "cpu":
        from tests.bench.decode_cpu import run

        print(json.dumps(run(**_cpu_arguments(options))))
        return
    print(json.dumps(run_cuda(options)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="nano")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--weights", default="bf16", help="bf16, q8_0, q4_0, int8, int4; on a CPU also a GGUF file"
    )
    parser.add_argument("--depth", default="0", help="drafts a round, or auto")
    parser.add_argument("--accept", default="", help="unconditional, by position: .84,.60")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="print what each kernel takes")
    parser.add_argument("--greedy", action="store_true", help="else T 1, top_k 64, top_p .95")
    return parser.parse_args()


def _cpu_arguments(options: argparse.Namespace) -> dict[str, Any]:
    names = ("shape", "weights", "prompt", "tokens", "threads")
    return {
        **{name: getattr(options, name) for name in names},
        "depth": int(options.depth),
        "accept": _accept(options),
    }


def _accept(options: argparse.Namespace) -> list[float]:
    return [float(rate) for rate in options.accept.split(",") if rate]


def run_cuda(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one configuration on the GPU."""
    from gemmarunner.cuda.backend import CudaBackend

    device = torch.device("cuda")
    bandwidth = copy_bandwidth(device)
    depth = int(options.depth)
    begun = time.perf_counter()
    target, drafter, read_bytes = build_pair(options.shape, options.weights, device, depth > 0)
    built = time.perf_counter()
    backend = CudaBackend(
        target,
        drafter,
        num_ctx=options.prompt + options.tokens + (_WARM_ROUNDS + 4) * (depth + 1),
        slots=options.batch,
        max_depth=depth,
        synthetic=_accept(options) or None,
    )
    backend.warm(lambda *_: None)
    warmed = time.perf_counter()
    texts, sampler, prefill_s = _prompts(backend, options)
    rounds, seconds, tokens, device_s = _decode(backend, texts, sampler, depth, options.tokens)
    if options.profile:
        _profile(backend, texts, sampler, depth)
    floor_ms = read_bytes / bandwidth * 1e3
    per_round = tokens / rounds / options.batch
    ms_round = seconds / rounds * 1e3
    return {
        "shape": options.shape,
        "weights": options.weights,
        "depth": depth,
        "batch": options.batch,
        "ms_per_token": round(ms_round / per_round, 4),
        "ms_per_round": round(ms_round, 4),
        "device_ms_per_round": round(statistics.median(device_s) * 1e3, 4),
        "tokens_per_round": round(per_round, 4),
        "tokens_per_s": round(tokens / seconds, 1),
        "floor_ms": round(floor_ms, 4),
        "of_floor": round(floor_ms / (ms_round / per_round), 4),
        "prefill_ms": round(prefill_s * 1e3, 2),
        "prefill_tokens_per_s": round(options.prompt / prefill_s),
        "peak_memory": torch.cuda.max_memory_allocated(),
        "copy_gb_s": round(bandwidth / 1e9),
        "build_s": round(built - begun, 2),
        "warm_s": round(warmed - built, 2),
    }


def build_pair(
    shape: str, weights: str, device: torch.device, drafts: bool
) -> tuple[Any, Any, float]:
    """A target, its drafter if wanted, and the bytes of weights that one decoded token reads."""
    from gemmarunner.cuda.drafter import CudaDrafter
    from gemmarunner.cuda.target import CudaTarget

    tensors = shapes.synthetic_target(shape, device, torch.bfloat16)
    config = shapes.target_config(shape)
    packing = _Packing(weights, config.moe.top_k / config.moe.experts if config.moe else 1.0)
    target = CudaTarget(config, tensors.take, device, torch.bfloat16, pack=packing)
    drafter = None
    if drafts:
        made = shapes.take(shape, device, torch.bfloat16, 1)
        drafter = CudaDrafter(shapes.drafter_config(shape), made, target)
    return target, drafter, tensors.read_bytes - packing.saved


class _Packing:
    """Keeps matrices as `--quantize` would, and counts the bytes that saves."""

    def __init__(self, weights: str, share: float) -> None:
        """`share`: of the experts that a token reads."""
        self._share = share
        wanted = {"bf16": None, "q8_0": "int8", "q4_0": "int4"}.get(weights, weights)
        self._pack = packer(wanted)
        self.saved = 0

    def __call__(self, name: str, matrix: Tensor) -> Any:
        packed = self._pack(name, matrix)
        read = self._share if name == "experts" else 1.0
        self.saved += round((matrix.nbytes - packed.nbytes) * read)
        return packed


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy on the device."""
    source = torch.empty(2**31, dtype=torch.uint8, device=device).random_(0, 255)
    sink = torch.empty_like(source)
    times = []
    for _ in range(8):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        sink.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * source.numel() / statistics.median(times)


def _prompts(backend: Any, options: argparse.Namespace) -> tuple[list[list[int]], Sampler, float]:
    """Every slot has read a prompt and chosen a token; seconds of the last slot's reading."""
    sampling = Sampling(temperature=0.0) if options.greedy else Sampling(seed=1)
    sampler = Sampler(sampling, vocab=backend.vocab_size, device=torch.device("cuda"))
    texts: list[list[int]] = []
    seconds = 0.0
    generator = torch.Generator().manual_seed(2)
    for slot in (0, *range(options.batch)):  # slot 0 twice: first uses are not what is measured
        backend.truncate(slot, 0)
        text = _random_text(backend, options.prompt, generator)
        begun = time.perf_counter()
        for start in range(0, len(text), backend.max_rows):
            backend.prefill(slot, text[start : start + backend.max_rows])
        text.append(backend.first(slot, text, sampler))
        seconds = time.perf_counter() - begun
        texts.append(text)
    return texts[-options.batch :], sampler, seconds


def _random_text(backend: Any, count: int, generator: torch.Generator) -> list[int]:
    text: list[int] = torch.randint(10, backend.vocab_size, (count,), generator=generator).tolist()
    return text


def _decode(
    backend: Any, texts: list[list[int]], sampler: Sampler, depth: int, wanted: int
) -> tuple[int, float, int, list[float]]:
    """Rounds, wall seconds, tokens of all streams, and each round's seconds on the device."""
    rounds, tokens, device_s, begun = -_WARM_ROUNDS, 0, [], 0.0
    room = backend.num_ctx - 2 * depth - 3
    plans = [RoundPlan(slot, text, sampler, depth) for slot, text in enumerate(texts)]
    pending = backend.launch(plans)
    while True:
        if rounds == 0:
            tokens, device_s, begun = 0, [], time.perf_counter()
        last = (tokens >= wanted * len(texts) and rounds > 0) or max(map(len, texts)) >= room
        if last:
            seconds = time.perf_counter() - begun
            pending.wait()
            return rounds, seconds, tokens, device_s
        behind = backend.follow(plans)
        result = pending.wait()
        for text, new in zip(texts, result.tokens, strict=True):
            text.extend(new)
            tokens += len(new)
        device_s.append(result.seconds)
        rounds += 1
        pending = behind or backend.launch(plans)


def _profile(backend: Any, texts: list[list[int]], sampler: Sampler, depth: int) -> None:
    """Prints count and microseconds of every kernel of one round, the costliest first."""
    plans = [RoundPlan(slot, text, sampler, depth) for slot, text in enumerate(texts)]
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        backend.launch(plans).wait()
    for event in sorted(profile.key_averages(), key=lambda e: -e.device_time_total)[:40]:
        total, count = event.device_time_total, event.count
        print(f"{total:9.1f} us {count:5d} x {total / count:7.2f}  {event.key[:90]}")


if __name__ == "__main__":
    main()
