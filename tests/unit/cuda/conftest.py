"""The five tiny shapes in both decoders, each built once a session."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from tests.fakes.tiny_models import SHAPES
from tests.unit.cuda.cuda_pairs import Pairs, build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Results and times don't depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pairs]:
    """Builds the pair of a shape, at most once a session."""
    return cache(lambda shape: build(shape, tmp_path_factory.mktemp(shape)))


@pytest.fixture(params=list(SHAPES))
def pair(request: pytest.FixtureRequest, pair_of: Callable[[str], Pairs]) -> Pairs:
    """Each shape in turn."""
    return pair_of(request.param)
