"""Runs requests through an engine to their ends, and compares counts with exact chances."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineEvent, EngineRequest, Finished, Tokens
from gemmarunner.engine.ports import Drafter as DrafterPort
from gemmarunner.engine.ports import Target as TargetPort
from gemmarunner.engine.request import DraftMode, Sampling
from gemmarunner.models.drafter import Drafter
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.models.target import Target
from tests.fakes.tiny_models import SHAPES, checkpoint_files

GREEDY = Sampling(temperature=0.0)
NO_EOS: frozenset[int] = frozenset()


class Answer(NamedTuple):
    """What became of one request."""

    tokens: list[int]
    finished: Finished


_OF_ENGINE = ("eos_ids", "suppress_ids", "depth_state", "prefix_bytes", "clock_ns")


def eager_engine(target: TargetPort, drafter: DrafterPort | None, **options: Any) -> Engine:
    """An engine of a pair on an eager backend; each option goes to the one that knows it."""
    of_engine = {name: options.pop(name) for name in _OF_ENGINE if name in options}
    of_engine.setdefault("eos_ids", NO_EOS)
    return Engine(EagerBackend(target, drafter, **options), **of_engine)


def run_all(engine: Engine) -> list[EngineEvent]:
    """All events until the engine has no work."""
    events = []
    while engine.has_work:
        events += engine.step()
    return events


def answer_of(events: Iterable[EngineEvent], id: int) -> Answer:
    """The tokens and the end of request `id`."""
    own = [event for event in events if event.id == id]
    assert isinstance(own[-1], Finished), own[-1]
    assert all(isinstance(event, Tokens) for event in own[:-1])
    return Answer([token for event in own[:-1] for token in event.tokens], own[-1])


def ask(
    engine: Engine,
    prompt: Sequence[int],
    sampling: Sampling = GREEDY,
    draft: DraftMode = "auto",
    max_tokens: int | None = None,
) -> Answer:
    """The answer of an engine that has nothing else to do."""
    engine.add(EngineRequest(1, list(prompt), sampling, draft, max_tokens))
    return answer_of(run_all(engine), 1)


def tiny_pair(shape: str, directory: Path, dtype: torch.dtype) -> tuple[Target, Drafter]:
    """A tiny random pair of one of Gemma 4's shapes in our own decoder."""
    SHAPES[shape](directory)
    target = load_target(checkpoint_files(directory / "target"), "cpu", dtype)
    drafter = load_drafter(checkpoint_files(directory / "assistant"), "cpu", dtype)
    drafter.bind(target)
    return target, drafter


def chance_of_texts(
    distribution: Callable[[list[int]], Tensor], prompt: Sequence[int], vocab: int, length: int
) -> Tensor:
    """The chance [vocab ** length] of every text of `length` tokens after `prompt`."""
    chances = torch.zeros((vocab,) * length, dtype=torch.float64)
    for start in product(range(vocab), repeat=length - 1):
        chance = torch.ones((), dtype=torch.float64)
        for index, token in enumerate(start):
            chance = chance * distribution([*prompt, *start[:index]])[token]
        chances[start] = chance * distribution([*prompt, *start])
    return chances.flatten()


def p_value(counts: Tensor, chances: Tensor) -> float:
    """How likely counts at least this far from `chances` are, by Pearson's chi-square.

    Cells where fewer than five are expected share one; a count where none can be gives 0.
    """
    if bool(counts[chances == 0].any()):
        return 0.0
    expected = chances * counts.sum()
    rare = expected < 5
    observed = torch.cat((counts[~rare], counts[rare].sum()[None])).double()
    expected = torch.cat((expected[~rare], expected[rare].sum()[None]))
    used = expected > 0
    statistic = ((observed - expected)[used] ** 2 / expected[used]).sum()
    freedom = used.sum().double() - 1
    if freedom == 0:
        return 1.0  # a single outcome, and nothing else was counted
    return float(torch.special.gammaincc(freedom / 2, statistic / 2))
