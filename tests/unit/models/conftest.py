"""The five tiny shapes, each built once a session."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from gemmarunner.models.drafter import Drafter
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.models.target import Target
from gemmarunner.native import library as native_library
from tests.fakes.tiny_models import SHAPES, TinyPair, checkpoint_files


class Pairs(NamedTuple):
    """A shape as the oracle has it and as we do."""

    oracle: TinyPair
    target: Target
    drafter: Drafter


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Results and times don't depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pairs]:
    """Builds the pair of a shape, at most once a session."""
    return _builder(tmp_path_factory)


@pytest.fixture(scope="session")
def torch_pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pairs]:
    """As `pair_of`, of pairs built where there is no native library."""
    return _builder(tmp_path_factory)


@pytest.fixture
def torch_pair_of(
    torch_pairs: Callable[[str], Pairs], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Pairs]:
    """Pairs that run by torch's operators alone, during this test."""
    monkeypatch.setattr(native_library, "_load", lambda: "switched off")
    return torch_pairs


def _builder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pairs]:
    @cache
    def build(shape: str) -> Pairs:
        oracle = SHAPES[shape](tmp_path_factory.mktemp(shape), 0)
        target = load_target(checkpoint_files(oracle.directory / "target"), "cpu")
        drafter = load_drafter(checkpoint_files(oracle.directory / "assistant"), "cpu")
        drafter.bind(target)
        return Pairs(oracle, target, drafter)

    return build


@pytest.fixture(params=list(SHAPES))
def pair(request: pytest.FixtureRequest, pair_of: Callable[[str], Pairs]) -> Pairs:
    """Each shape in turn."""
    return pair_of(request.param)


@pytest.fixture
def e2b_directory(pair_of: Callable[[str], Pairs]) -> Path:
    """Where the E2B shape's checkpoints lie."""
    return pair_of("e2b").oracle.directory
