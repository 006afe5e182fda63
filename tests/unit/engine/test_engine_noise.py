"""The noise is even, repeats, and depends on nothing but seed, stream, position and token."""

import pytest
import torch

from gemmarunner.engine import noise
from gemmarunner.engine.noise import log_uniform, stream_key
from tests.fakes.engine_runs import p_value

IDS = torch.arange(1000)[None]


def test_noise_of_a_position_does_not_depend_on_the_rows_before_it():
    """A row drawn alone equals the same row drawn among others."""
    together = log_uniform(7, 100, IDS.expand(5, -1))

    assert torch.equal(log_uniform(7, 103, IDS)[0], together[3])


def test_numpy_and_torch_give_the_same_noise(monkeypatch: pytest.MonkeyPatch):
    """A text does not depend on which of the two was quicker."""
    ids = IDS.expand(3, -1)
    narrow = log_uniform(2**64 - 1, 2**20, ids)
    monkeypatch.setattr(noise, "_NARROW", 0)

    assert torch.equal(narrow, log_uniform(2**64 - 1, 2**20, ids))


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63])
def test_noise_is_even_from_zero_to_one(seed: int):
    """A hundred bins of 200,000 numbers are filled evenly, down to the rarest."""
    numbers = log_uniform(stream_key(seed, 0), 5, torch.arange(200_000)[None]).exp()
    counts = torch.histc(numbers, 100, 0, 1)

    assert p_value(counts, torch.full((100,), 0.01, dtype=torch.float64)) > 1e-4
    assert float(numbers.min()) < 1e-4
    assert float(numbers.max()) <= 1


def test_neighbouring_positions_and_streams_are_independent():
    """Pairs of numbers fill a 10 by 10 grid evenly."""
    ids = torch.arange(50_000)[None]
    first = log_uniform(stream_key(3, 0), 5, ids).exp()
    for other in (
        log_uniform(stream_key(3, 0), 6, ids),
        log_uniform(stream_key(3, 1), 5, ids),
        log_uniform(stream_key(4, 0), 5, ids),
        log_uniform(stream_key(3, 0), 5, ids + 1),
    ):
        cells = (first * 10).long().clamp_(max=9) * 10 + (other.exp() * 10).long().clamp_(max=9)
        counts = torch.bincount(cells[0], minlength=100)

        assert p_value(counts, torch.full((100,), 0.01, dtype=torch.float64)) > 1e-4
