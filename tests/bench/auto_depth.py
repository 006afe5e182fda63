"""What choosing the depth costs on a GPU: the controller against every fixed depth, in one process.

    python -m tests.bench.auto_depth --shape e4b --weights bf16 --rates 0,.3,.6,.9 --tokens 2048

A line a rate: milliseconds a token of answers at each fixed depth and under a controller that knows
nothing yet, and the latter's share of the best and of plain. All of it runs through the engine. A
draft stays with probability `rate` if those before it did; the target's own choice on random
weights has no part in it. Rounds take what they take; tokens are those that rounds of such depths
are expected to bring, so that no way is lucky.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.cuda.flight import CudaPending
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineRequest, Finished
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import DraftMode, Sampling
from tests.bench import shapes
from tests.bench.decode import build_pair

_SPAN = 256  # tokens of an answer, before the next begins


def main() -> None:
    """Prints one JSON line a rate."""
    options = _options()
    target, drafter, _ = build_pair(options.shape, options.weights, torch.device("cuda"), True)
    for rate in options.rates:
        backend = Counting(
            target,
            drafter,
            num_ctx=options.prompt + _SPAN + 64,
            max_depth=options.max_depth,
            synthetic=[rate ** (i + 1) for i in range(options.max_depth)],
        )
        backend.rate = rate
        backend.warm(lambda *_: None)
        print(json.dumps({"shape": options.shape, "weights": options.weights, "rate": rate}
                         | measured(backend, rate, options)), flush=True)  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="e4b")
    parser.add_argument("--weights", default="bf16")
    parser.add_argument(
        "--rates", default="0,.3,.6,.9", type=lambda text: [float(r) for r in text.split(",")]
    )
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=2048, help="of the controller's answers")
    parser.add_argument("--max-depth", type=int, default=8)
    return parser.parse_args()


def measured(backend: "Counting", rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a token of each way."""
    text = torch.randint(10, backend.vocab_size, (options.prompt,)).tolist()
    depths = range(options.max_depth + 1)
    turns = [[backend.ms(text, depth, _SPAN) for depth in depths] for _ in range(2)]
    auto = backend.ms(text, "auto", options.tokens)
    fixed = [statistics.mean(pair) for pair in zip(*turns, strict=True)]
    return {
        "fixed_ms": [round(ms, 3) for ms in fixed],
        "auto_ms": round(auto, 3),
        "of_best": round(min(fixed) / auto, 4),
        "of_plain": round(fixed[0] / auto, 4),
    }


class Counting(CudaBackend):
    """Adds up what rounds are expected to bring."""

    rate = 0.0
    expected = 0.0

    def launch(self, plans: Sequence[RoundPlan]) -> CudaPending:
        """A round, counted."""
        self._count(plans)
        return super().launch(plans)

    def follow(self, plans: Sequence[RoundPlan]) -> CudaPending | None:
        """A round behind another, counted."""
        pending = super().follow(plans)
        if pending is not None:
            self._count(plans)
        return pending

    def ms(self, prompt: list[int], draft: DraftMode, tokens: int) -> float:
        """A token, of a fresh engine's answers of `_SPAN` tokens; `tokens` of them in all."""
        engine, spent = Engine(self, eos_ids=frozenset(), prefix_bytes=0), 0
        self.expected = 0.0
        for id in range(max(1, tokens // _SPAN)):
            engine.add(EngineRequest(id, prompt, Sampling(seed=1 + id), draft, _SPAN))
            while engine.has_work:
                ends = [event for event in engine.step() if isinstance(event, Finished)]
                spent += sum(end.eval_ns for end in ends)
        return spent / 1e6 / self.expected

    def _count(self, plans: Sequence[RoundPlan]) -> None:
        for plan in plans:
            self.expected += sum(self.rate**i for i in range(plan.depth + 1))


if __name__ == "__main__":
    main()
