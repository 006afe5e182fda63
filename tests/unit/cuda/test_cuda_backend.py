"""The backend as the engine sees it: loaded from files, warmed, padded, and asked amiss."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gemmarunner.cuda.graphs import RoundGraphs, Shape
from gemmarunner.cuda.inputs import Ask, Inputs
from gemmarunner.cuda.loading import load_cuda_pair
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.ports import RoundPlan
from tests.fakes.engine_runs import ask
from tests.fakes.tiny_models import SHAPES, checkpoint_files
from tests.unit.cuda.cuda_pairs import begun, grown, sampler, text

CPU = torch.device("cpu")


def test_cuda_pair_loads_from_files_and_answers(tmp_path: Path) -> None:
    """From two directories to an engine's answer, the same with drafts and without."""
    SHAPES["e4b"](tmp_path, 0)
    files = [checkpoint_files(tmp_path / part) for part in ("target", "assistant")]
    backend = load_cuda_pair(files[0], files[1], "cpu", num_ctx=64, slots=2, max_depth=3)
    engine = Engine(backend, eos_ids=frozenset())

    texts = [ask(engine, text(20), draft=mode, max_tokens=12).tokens for mode in ("off", 3)]

    assert texts[0] == texts[1]
    assert len(texts[0]) == 12


def test_cuda_warming_leaves_no_trace(pair_of: Callable) -> None:
    """All slots are empty, and the next text is what it would have been."""
    backend, by, steps = pair_of("e4b").backend(), sampler(temperature=0.0), []
    cold = grown(backend, [begun(backend, 0, text(20), by)], [by], [[2]] * 5)
    backend.truncate(0, 0)

    backend.warm(lambda done, total: steps.append((done, total)))

    assert [backend.length(slot) for slot in range(3)] == [0, 0, 0]
    assert steps[-1][0] == steps[-1][1] > 1
    assert grown(backend, [begun(backend, 0, text(20), by)], [by], [[2]] * 5) == cold


def test_cuda_rounds_are_one_at_a_time(pair_of: Callable) -> None:
    """A second launch before the first was waited for is the caller's mistake."""
    backend, by = pair_of("e4b").backend(), sampler(temperature=0.0)
    texts = [begun(backend, slot, text(9), by) for slot in (0, 1)]
    pending = backend.launch([RoundPlan(0, texts[0], by, 2)])

    with pytest.raises(AssertionError, match="one round at a time"):
        backend.launch([RoundPlan(1, texts[1], by, 2)])

    assert pending.wait().seconds > 0
    assert backend.launch([RoundPlan(1, texts[1], by, 2)]).wait().tokens


def test_cuda_inputs_arrive_as_written() -> None:
    """Every field of every sequence, and the last sequence once more where the batch is wider."""
    inputs, by = Inputs(5, CPU), sampler(temperature=0.5, top_p=0.75, min_p=0.25, seed=1)
    inputs.write([Ask(3, 41, 7, 2, by), Ask(1, 9, 6, 0, sampler(top_k=0))], 4)
    inputs.send()

    fields = inputs.fields(4)

    assert fields.slot.tolist() == fields.place.tolist() == [3, 1, 1, 1]
    assert (fields.start.tolist(), fields.position.tolist()) == ([41, 9, 9, 9], [42, 10, 10, 10])
    assert (fields.seed.tolist(), fields.depth.tolist()) == ([7, 6, 6, 6], [2, 0, 0, 0])
    assert fields.choosing.temperature.tolist() == [0.5, 1, 1, 1]
    assert fields.choosing.top_k.tolist() == [64] * 4
    assert (fields.top_p[0].item(), fields.min_p[0].item()) == (0.75, 0.25)
    assert fields.key[0].item() % 2**64 == by.key(0)


def test_cuda_graphs_never_outgrow_the_invariant_rows() -> None:
    """Rows beyond one tile would depend on their number, so wide batches draft less deep."""
    graphs = RoundGraphs(None, None, [1, 2, 4, 8, 16, 32], 8, CPU)  # type: ignore[arg-type]

    assert max(shape.batch * (shape.depth + 1) for shape in graphs.shapes) <= 128
    assert graphs.shapes[:2] == [Shape(32, 3), Shape(16, 7)]
    assert {Shape(1, 8), Shape(8, 8), Shape(32, 3)} <= set(graphs.shapes)
    assert [graphs.bucket(count) for count in (1, 3, 9, 32)] == [1, 4, 16, 32]
