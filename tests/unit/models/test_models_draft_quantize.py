"""A quantized drafter costs drafts at most: answers are the plain drafter's."""

import pytest
import torch

from gemmad.wire import Load, PairFiles
from gemmarunner.backends import Place, build
from gemmarunner.engine.engine import Engine
from gemmarunner.models import packing
from gemmarunner.models.loader import load_drafter
from gemmarunner.models.lora import ACCEPTANCE_NOTE, adaptable
from tests.fakes.engine_runs import ask, eager_engine
from tests.fakes.nano import DIRECTORY, nano_prompts
from tests.fakes.tiny_models import checkpoint_files
from tests.unit.models.test_models_lora import adapter


@pytest.fixture
def packs_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny matrices are packed too."""
    monkeypatch.setattr(packing, "_SMALL_ELEMENTS", 0)


def nano(quantize: str | None) -> Engine:
    """The built-in pair, its drafter quantized."""
    built = build(
        Load(
            files=PairFiles(target=paths("target"), drafter=paths("drafter")),
            draft_quantize=quantize,  # type: ignore[arg-type]
        ),
        checkpoint_files(DIRECTORY / "target"),
        Place("cpu", torch.float32),
        lambda phase, done, total: None,
    )
    assert built.has_drafter, built.note
    return Engine(built.backend, eos_ids=frozenset({1, 106, 50}))


def paths(part: str) -> dict[str, str]:
    return {name: str(path) for name, path in checkpoint_files(DIRECTORY / part).items()}


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantized_drafter_is_accepted_and_changes_no_text(quantize, packs_all) -> None:
    """Greedy answers are equal, and nearly as many drafts fit as before."""
    prompts = nano_prompts(4)
    plain, packed = (
        [ask(engine, prompt, draft=4, max_tokens=48) for prompt in prompts]
        for engine in (nano(None), nano(quantize))
    )
    accepted = [sum(a.finished.draft.accepted for a in answers) for answers in (plain, packed)]

    assert [answer.tokens for answer in plain] == [answer.tokens for answer in packed]
    assert accepted[1] > 0.8 * accepted[0] > 0


@pytest.mark.parametrize(  # with and without the centroid head
    "shape", ["e2b", pytest.param("12b", marks=pytest.mark.slow)]
)
def test_quantized_drafter_changes_no_text_of_any_head(pair_of, shape, packs_all) -> None:
    """Matrices and a dense head are packed, and the random pair still answers the same."""
    pair = pair_of(shape)
    directory = pair.oracle.directory / "assistant"
    packed = load_drafter(checkpoint_files(directory), "cpu", None, None, "int8")
    packed.bind(pair.target)
    answers = [
        ask(eager_engine(pair.target, drafter, num_ctx=96), [5, 6, 7], draft=3, max_tokens=24)
        for drafter in (pair.drafter, packed)
    ]

    assert answers[0].tokens == answers[1].tokens
    assert not packed._scripted  # packed matrices were built, which scripts do not know


def test_adapter_reaches_the_target_and_the_notes(pair_of, tmp_path) -> None:
    """A load that names an adapter serves the adapted pair with its drafter, and says so."""
    pair = pair_of("e2b")
    shapes = {"layers.0.mlp.up_proj": adaptable(pair.target.config)["layers.0.mlp.up_proj"]}
    given = adapter(tmp_path, shapes)
    target = checkpoint_files(pair.oracle.directory / "target")
    drafter = checkpoint_files(pair.oracle.directory / "assistant")
    groups = [{n: str(p) for n, p in group.items()} for group in (target, drafter, given)]
    load = Load(files=PairFiles(target=groups[0], drafter=groups[1], adapter=groups[2]), num_ctx=64)
    built = build(load, target, Place("cpu", torch.float32), lambda phase, done, total: None)

    assert built.has_drafter
    assert ACCEPTANCE_NOTE in built.notes
