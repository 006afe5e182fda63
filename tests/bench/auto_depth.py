"""What choosing the depth costs on a GPU: the controller against every fixed depth, in one process.

    python -m tests.bench.auto_depth --shape e4b --weights bf16 --rates 0,.3,.6,.9 --tokens 768

A line a rate: milliseconds a token at each fixed depth and under a controller that knows nothing
yet, and the latter's share of the best and of plain. A draft stays with probability `rate` if those
before it did; the target's own choice on random weights has no part in it.
"""

import argparse
import json
import time
from typing import Any

import torch

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.engine.controller import DepthController, Regime
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from tests.bench import shapes
from tests.bench.decode import build_pair

_WARM_ROUNDS = 8


def main() -> None:
    """Prints one JSON line a rate."""
    options = _options()
    target, drafter, _ = build_pair(options.shape, options.weights, torch.device("cuda"), True)
    for rate in options.rates:
        backend = CudaBackend(
            target,
            drafter,
            num_ctx=options.prompt + options.tokens + 64,
            max_depth=options.max_depth,
            synthetic=[rate ** (i + 1) for i in range(options.max_depth)],
        )
        backend.warm(lambda *_: None)
        print(json.dumps({"shape": options.shape, "weights": options.weights, "rate": rate}
                         | measured(backend, options)), flush=True)  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="e4b")
    parser.add_argument("--weights", default="bf16")
    parser.add_argument(
        "--rates", default="0,.3,.6,.9", type=lambda text: [float(r) for r in text.split(",")]
    )
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=768, help="of the controller's answer")
    parser.add_argument("--fixed-tokens", type=int, default=160, help="of each fixed depth's")
    parser.add_argument("--max-depth", type=int, default=8)
    return parser.parse_args()


def measured(backend: CudaBackend, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a token of each way."""
    text = torch.randint(10, backend.vocab_size, (options.prompt,)).tolist()
    sampler = Sampler(Sampling(seed=1), vocab=backend.vocab_size, device=backend.device)
    fixed = {
        depth: answer(backend, text, sampler, options.fixed_tokens, depth)
        for depth in range(options.max_depth + 1)
    }
    auto = answer(backend, text, sampler, options.tokens, None)
    again = answer(backend, text, sampler, options.fixed_tokens, 0)
    plain = (fixed[0] + again) / 2
    best = min(min(fixed.values()), plain)
    return {
        "fixed_ms": {depth: round(ms, 3) for depth, ms in fixed.items()},
        "auto_ms": round(auto, 3),
        "of_best": round(best / auto, 4),
        "of_plain": round(plain / auto, 4),
    }


def answer(
    backend: CudaBackend, prompt: list[int], sampler: Sampler, count: int, depth: int | None
) -> float:
    """Milliseconds a token of an answer; depth None: a fresh controller's."""
    backend.truncate(0, 0)
    backend.prefill(0, prompt)
    text = [*prompt, backend.first(0, prompt, sampler)]
    controller = DepthController(backend.max_depth)
    rounds, begun, start = -_WARM_ROUNDS if depth is not None else 0, time.perf_counter(), len(text)
    while len(text) - start < count or rounds <= 0:
        if rounds == 0:
            begun, start = time.perf_counter(), len(text)
        limit = {Regime.SAMPLED: backend.max_depth}
        now = controller.choose(1, limit)[Regime.SAMPLED] if depth is None else depth
        result = backend.launch([RoundPlan(0, text, sampler, now)]).wait()
        new = result.tokens[0]
        if depth is None:
            kept = [True] * (len(new) - 1) + [False] * (len(new) - 1 < now)
            controller.record(1, now, [(Regime.SAMPLED, kept)], result.seconds)
        text += new
        rounds += 1
    return (time.perf_counter() - begun) / (len(text) - start) * 1e3


if __name__ == "__main__":
    main()
