"""Triton in its interpreter before anything imports it, and one torch thread."""

import importlib.util

import pytest
import torch

# Triton's own library is interpreted only if the mode is set before triton is first imported, so
# `pytest.importorskip("triton")` in a test module would come too early.
if importlib.util.find_spec("triton") is not None:
    import tests.fakes.triton_on_cpu  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Holds for every test of the kernels."""
    torch.set_num_threads(1)
