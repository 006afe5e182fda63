"""Kernels that compute wrongly on a processor are found and switched off."""

import logging

import pytest
import torch
from torch import Tensor

from gemmarunner.native import library as native_library
from gemmarunner.native import trial
from gemmarunner.native.library import library, status
from gemmarunner.native.linear import Native
from gemmarunner.quant.formats import Format, Packed

pytestmark = pytest.mark.skipif(library() is None, reason=status())


@pytest.fixture(autouse=True)
def switched_on_again(monkeypatch) -> None:
    """Each test tries anew, and leaves the kernels as they were."""
    monkeypatch.setattr(native_library, "_off", "")
    trial.try_kernels.cache_clear()


def test_kernels_of_this_processor_pass() -> None:
    """Every kind."""
    trial.try_kernels()

    assert library() is not None
    assert [name for name, _ in trial._samples()] == [
        *("bf16", "float16", "float32", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K")
    ]


class Uneven(Native):
    """A product that is different among more rows than five, in one kind."""

    def __init__(self, weight: Tensor | Packed) -> None:
        super().__init__(weight)
        self.hit = isinstance(weight, Packed) and weight.format is Format.Q5_K

    def __call__(self, rows: Tensor) -> Tensor:
        found = super().__call__(rows)
        return found + 1e-6 if self.hit and len(rows) > 5 else found


def test_rows_that_hang_on_others_are_found(monkeypatch) -> None:
    """However small the difference."""
    monkeypatch.setattr(trial, "Native", Uneven)

    trial.try_kernels()

    assert library() is None
    assert "Q5_K compute wrongly" in status()


def test_wrong_products_switch_all_off(monkeypatch, caplog) -> None:
    """A person reads which, and what runs instead."""

    class Far(Native):
        def __call__(self, rows: Tensor) -> Tensor:
            return torch.zeros_like(super().__call__(rows))

    monkeypatch.setattr(trial, "Native", Far)

    with caplog.at_level(logging.ERROR):
        trial.try_kernels()

    assert library() is None
    assert "Torch's operators run instead" in caplog.text
