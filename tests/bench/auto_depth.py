"""What choosing the depth costs on a GPU: the controller against every fixed depth, in one process.

    python -m tests.bench.auto_depth --shape e4b --weights bf16 --rates 0,.3,.6,.9 --tokens 768

A line a rate: milliseconds a token at each fixed depth and under a controller that knows nothing
yet, and the latter's share of the best and of plain. A draft stays with probability `rate` if those
before it did; the target's own choice on random weights has no part in it. Rounds take what they
take; tokens are those that rounds of such depths are expected to bring, so that no way is lucky.
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
_SPAN = 256  # tokens of an answer, before the next begins


def main() -> None:
    """Prints one JSON line a rate."""
    options = _options()
    target, drafter, _ = build_pair(options.shape, options.weights, torch.device("cuda"), True)
    for rate in options.rates:
        backend = CudaBackend(
            target,
            drafter,
            num_ctx=options.prompt + max(options.tokens, 9 * options.rounds) + 128,
            max_depth=options.max_depth,
            synthetic=[rate ** (i + 1) for i in range(options.max_depth)],
        )
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
    parser.add_argument("--tokens", type=int, default=768, help="of the controller's answer")
    parser.add_argument("--rounds", type=int, default=60, help="of each fixed depth, twice")
    parser.add_argument("--max-depth", type=int, default=8)
    return parser.parse_args()


def measured(backend: CudaBackend, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a token of each way."""
    text = torch.randint(10, backend.vocab_size, (options.prompt,)).tolist()
    sampler = Sampler(Sampling(seed=1), vocab=backend.vocab_size, device=backend.device)
    answer = Answer(backend, text, sampler, rate)
    depths = range(options.max_depth + 1)
    turns = [[answer.fixed(depth, options.rounds) for depth in depths] for _ in range(2)]
    auto = answer.chosen(options.tokens)
    fixed = [min(pair) for pair in zip(*turns, strict=True)]
    return {
        "fixed_ms": [round(ms, 3) for ms in fixed],
        "auto_ms": round(auto, 3),
        "of_best": round(min(fixed) / auto, 4),
        "of_plain": round(fixed[0] / auto, 4),
    }


class Answer:
    """Milliseconds a token of answers to one prompt."""

    def __init__(
        self, backend: CudaBackend, prompt: list[int], sampler: Sampler, rate: float
    ) -> None:
        self._backend = backend
        self._prompt = prompt
        self._sampler = sampler
        self._rate = rate

    def fixed(self, depth: int, rounds: int) -> float:
        """Of `rounds` rounds at one depth."""
        text = self._begun()
        for _ in range(_WARM_ROUNDS):
            self._round(text, depth)
        begun = time.perf_counter()
        for _ in range(rounds):
            self._round(text, depth)
        seconds = time.perf_counter() - begun
        return 1e3 * seconds / rounds / self._expected(depth)

    def chosen(self, count: int) -> float:
        """Of some `count` tokens at the depths of a fresh controller."""
        controller, spent, tokens = DepthController(self._backend.max_depth), 0.0, 0.0
        while tokens < count:
            text = self._begun()  # rounds grow dearer with the text, and fixed depths' are short
            for _ in range(_WARM_ROUNDS):
                self._round(text, 0)
            begun = time.perf_counter()
            while tokens < count and len(text) < len(self._prompt) + _SPAN:
                tokens += self._expected(self._learned_round(text, controller))
            spent += time.perf_counter() - begun
        return 1e3 * spent / tokens

    def _learned_round(self, text: list[int], controller: DepthController) -> int:
        """The depth that `controller` chose for a round; it has learned from it."""
        limit = {Regime.SAMPLED: self._backend.max_depth}
        depth = controller.choose(1, limit)[Regime.SAMPLED]
        new, seconds = self._round(text, depth)
        kept = [True] * (new - 1) + [False] * (new - 1 < depth)
        controller.record(1, depth, [(Regime.SAMPLED, kept)], seconds)
        return depth

    def _begun(self) -> list[int]:
        self._backend.truncate(0, 0)
        self._backend.prefill(0, self._prompt)
        return [*self._prompt, self._backend.first(0, self._prompt, self._sampler)]

    def _round(self, text: list[int], depth: int) -> tuple[int, float]:
        """How many tokens a round brought, and its seconds."""
        result = self._backend.launch([RoundPlan(0, text, self._sampler, depth)]).wait()
        text += result.tokens[0]
        return len(result.tokens[0]), result.seconds

    def _expected(self, depth: int) -> float:
        return sum(self._rate**i for i in range(depth + 1))


if __name__ == "__main__":
    main()
