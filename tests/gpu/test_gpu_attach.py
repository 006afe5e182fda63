"""A drafter leaves an accelerator and comes back while answers run: words, memory, waits.

`python -m tests.gpu.test_gpu_attach [SHAPE ...]` prints a JSON line of figures for each shape, by
random weights.
"""

import gc
import json
import sys
import time
from typing import Any, NamedTuple

import pytest
import torch

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineRequest, Tokens
from gemmarunner.engine.request import Sampling
from tests.bench import shapes
from tests.bench.decode import build_pair

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICE = torch.device("cuda")
DEPTH, TOKENS, DETACH_AT, ATTACH_AT = 4, 400, 10, 20
SAMPLINGS = (Sampling(temperature=0.0), Sampling(seed=7))


class Run(NamedTuple):
    """What two answers said and how long each step of them took."""

    words: dict[int, list[int]]
    steps_s: list[float]
    figures: dict[str, float]


def pair(shape: str) -> tuple[CudaBackend, Any]:
    """A warm pair of random weights, and its drafter made again whenever it is asked for."""
    target, drafter, _ = build_pair(shape, "bf16", DEVICE, True)
    backend = CudaBackend(target, drafter, num_ctx=4096, slots=2, max_depth=8)
    backend.warm(lambda *_: None)

    def again() -> Any:
        from gemmarunner.cuda.drafter import CudaDrafter

        made = shapes.take(shape, DEVICE, torch.bfloat16, 1)
        return CudaDrafter(shapes.drafter_config(shape), made, target)

    return backend, again


def run(backend: CudaBackend, again: Any, *, switches: bool) -> Run:
    """Two answers, in whose middle the drafter leaves and comes back if it `switches`."""
    engine = Engine(backend, eos_ids=frozenset(), prefix_bytes=0)
    words: dict[int, list[int]] = {0: [], 1: []}
    for id, sampling in enumerate(SAMPLINGS):
        prompt = [10 + (7 * n + id) % 5000 for n in range(200)]
        engine.add(EngineRequest(id, prompt, sampling, DEPTH, TOKENS))
    steps, figures = [], {}
    while engine.has_work:
        step = len(steps)
        if switches and step == DETACH_AT:
            gc.collect()
            figures["free_before"] = _free()
            engine.detach(lambda freed: figures.update(said=freed))
        if switches and step == DETACH_AT + 2:
            figures["freed"] = _free() - figures.pop("free_before")
        if switches and step == ATTACH_AT:
            drafter, begun = again(), time.perf_counter()
            torch.cuda.synchronize()

            def done(error: Exception | None, begun: float = begun) -> None:
                assert error is None
                figures["attach_s"] = time.perf_counter() - begun
                figures["attach_steps"] = len(steps) - ATTACH_AT

            engine.attach(drafter, done)
            del drafter
        started = time.perf_counter()
        for event in engine.step():
            if isinstance(event, Tokens):
                words[event.id] += event.tokens
        steps.append(time.perf_counter() - started)
    return Run(words, steps, figures)


def _free() -> int:
    torch.cuda.synchronize()
    return torch.cuda.mem_get_info()[0]


def examined(shape: str) -> dict[str, Any]:
    """The figures of a shape; the words of both runs are compared."""
    backend, again = pair(shape)
    gc.collect()
    undisturbed = run(backend, again, switches=False)
    switched = run(backend, again, switches=True)
    settled, during = undisturbed.steps_s[5:-5], switched.steps_s
    return {
        "shape": shape,
        "same_words": undisturbed.words == switched.words,
        "usual_step_s": round(sorted(settled)[len(settled) // 2], 5),
        "longest_step_s": round(max(settled), 5),
        "detach_step_s": round(during[DETACH_AT], 4),
        "longest_attach_step_s": round(max(during[ATTACH_AT + 1 :]), 4),
        "drafts_after": backend.depth_limit(1),
        **switched.figures,
    }


@pytest.mark.parametrize("shape", ["e2b"])
def test_drafter_leaves_and_comes_back_on_a_gpu(shape: str) -> None:
    """The same words; what became free is what was said, within a tenth."""
    found = examined(shape)

    assert found["same_words"]
    assert found["drafts_after"] > 0
    assert found["freed"] == pytest.approx(found["said"], rel=0.1)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["e2b"]:
        print(json.dumps(examined(wanted)), flush=True)
        gc.collect()
        torch.cuda.empty_cache()
