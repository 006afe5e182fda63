"""What a round leaves for the host and for the round behind it."""

import pytest
import torch

from gemmarunner.kernels.accept import Accepted, accept_slow
from gemmarunner.kernels.settle import Places, settle_slow
from tests.unit.kernels.test_kernels_accept import round_of

BATCH = 6


def places() -> Places:
    """Before the round; the rings of eight tokens wrap at some sequences."""
    start = torch.arange(100, 100 + BATCH, dtype=torch.int32)
    recent = torch.full((BATCH, 8), -5, dtype=torch.int32)
    return Places(torch.full((BATCH,), 77), start, start + 1, recent)


def accepted() -> Accepted:
    """What a round with four drafts brought."""
    return accept_slow(*round_of(3, BATCH, 4))


def test_round_behind_starts_where_this_one_ends() -> None:
    """Its seed is the last new token, and its places lie behind all of them."""
    after, brought = places(), accepted()

    settle_slow(brought, torch.zeros(BATCH, dtype=torch.bool), after)

    assert after.seed.tolist() == brought.seed.tolist()
    assert (after.start - 100 - torch.arange(BATCH)).tolist() == brought.count.tolist()
    assert torch.equal(after.position, after.start + 1)


def test_end_of_every_text_is_kept_up_to_date() -> None:
    """New tokens at their places in the ring, and nothing else is touched."""
    before, after, brought = places(), places(), accepted()

    settle_slow(brought, torch.zeros(BATCH, dtype=torch.bool), after)

    for row in range(BATCH):
        expected, begin = before.recent[row].clone(), int(before.position[row])
        for step in range(int(brought.count[row])):
            expected[(begin + step) % 8] = brought.new[row, step]
        assert torch.equal(after.recent[row], expected)


def test_host_gets_count_overflow_and_tokens() -> None:
    """In this order, a row a sequence."""
    overflow = torch.arange(BATCH) % 2 == 1
    brought = accepted()

    packed = settle_slow(brought, overflow, places())

    assert packed[:, 0].tolist() == brought.count.tolist()
    assert packed[:, 1].tolist() == [0, 1] * (BATCH // 2)
    assert torch.equal(packed[:, 2:], brought.new)


def test_kernel_settles_what_the_twin_settles() -> None:
    """Tokens, seeds and places are the twin's."""
    pytest.importorskip("triton")
    import tests.fakes.triton_on_cpu  # noqa: F401
    from gemmarunner.kernels.settle_triton import launch_settle

    overflow, kernels, twins = torch.arange(BATCH) % 2 == 1, places(), places()

    packed = launch_settle(accepted(), overflow, kernels)

    assert torch.equal(settle_slow(accepted(), overflow, twins), packed)
    assert all(map(torch.equal, twins, kernels))
