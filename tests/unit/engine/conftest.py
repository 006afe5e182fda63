"""One torch thread, so that small operations are fast and times repeat."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Holds for every test of the engine."""
    torch.set_num_threads(1)
