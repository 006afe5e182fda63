"""Slots roll back, copy and take back what they hold, and say what they cannot."""

from collections.abc import Callable

import pytest
import torch

from gemmarunner.cuda.slots import Slots, buckets
from tests.unit.cuda.cuda_pairs import Pairs, begun, grown, sampler, text

GREEDY = {"temperature": 0.0}


def answer(pair: Pairs, prompt: list[int], rounds: int = 6) -> list[int]:
    """A fresh slot's text."""
    backend, by = pair.backend(slots=1), sampler(**GREEDY)
    return grown(backend, [begun(backend, 0, prompt, by)], [by], [[2]] * rounds)[0]


def test_cuda_restored_slot_goes_on_as_if_nothing_was(pair: Pairs) -> None:
    """A snapshot survives another sequence in its slot and comes back into another one."""
    backend, by, prompt = pair.backend(), sampler(**GREEDY), text(150)
    backend.prefill(1, prompt[:64])
    backend.prefill(1, prompt[64:100])
    snapshot = backend.snapshot(1)
    backend.truncate(1, 0)
    begun(backend, 1, text(30, 9), by)

    backend.restore(0, snapshot)

    assert backend.length(0) == snapshot.length == 100
    assert 0 < snapshot.nbytes < backend.kv_bytes
    found = grown(backend, [begun(backend, 0, prompt, by)], [by], [[2]] * 6)
    assert found == [answer(pair, prompt)]


@pytest.mark.parametrize("back", [1, pytest.param(30, marks=pytest.mark.slow), 50])
def test_cuda_truncated_slot_reads_on(pair_of: Callable, back: int) -> None:
    """Positions dropped after a prompt past the window are as if never read."""
    pair = pair_of("e4b")
    backend, by, prompt = pair.backend(), sampler(**GREEDY), text(140)
    wrong = [*prompt[: 140 - back], *text(back, 8)]
    grown(backend, [begun(backend, 0, wrong, by)], [by], [[4]] * 3)

    backend.truncate(0, 140 - back)

    found = grown(backend, [begun(backend, 0, prompt, by)], [by], [[2]] * 6)
    assert found == [answer(pair, prompt)]


def test_cuda_slot_refuses_what_its_rings_lost(pair_of: Callable) -> None:
    """Sliding layers hold 128 positions here, 8 of which a row must see."""
    backend, prompt = pair_of("e4b").backend(), text(200)
    for begin in (0, 64, 128):
        backend.prefill(0, prompt[begin : begin + 64])

    assert [length for length in range(193) if backend.can_truncate(0, length)] == [
        0,
        *range(192 - 128 + 8, 193),
    ]
    assert not backend.can_truncate(0, 193)
    with pytest.raises(AssertionError):
        backend.truncate(0, 60)


def test_cuda_restored_slot_knows_how_far_back_it_goes(pair_of: Callable) -> None:
    """A snapshot holds one window of the sliding layers, so nothing before it can be kept."""
    backend = pair_of("e4b").backend()
    backend.prefill(0, text(50))
    backend.restore(1, backend.snapshot(0))

    assert [length for length in range(51) if backend.can_truncate(1, length)] == [0, 50]


def test_cuda_kv_bytes_are_what_the_rings_take(pair_of: Callable) -> None:
    """Full layers hold the context, sliding ones their window and spare rows."""
    config = pair_of("31b").target.config
    slots = Slots(config, 2, 500, torch.device("cpu"), torch.float32)
    sliding = 5 * 2 * 2 * 4 * 128 * 16 * 4  # layers, slots, K and V, heads, ring, width, bytes
    full = 2 * 2 * 2 * 2 * 512 * 32 * 4

    assert slots.nbytes == sliding + full


@pytest.mark.parametrize(
    ("slots", "sizes"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])],
)
def test_cuda_buckets_end_with_all_slots(slots: int, sizes: list[int]) -> None:
    """Powers of two, and no wider than there are slots."""
    assert buckets(slots) == sizes
