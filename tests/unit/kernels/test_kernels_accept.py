"""How far drafts agree with the target's choices, for many sequences at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.engine.accept import agreed
from gemmarunner.kernels.accept import Accepted, accept_slow
from tests.unit.kernels.test_kernels_choose import Sampling, choosing


def round_of(seed: int, batch: int, width: int) -> tuple[torch.Tensor, ...]:
    """Drafts, choices, depths and hidden rows of a round that agrees now and then."""
    generator = torch.Generator().manual_seed(seed)
    drafts = torch.randint(1, 3, (batch, width), generator=generator)
    chosen = torch.randint(1, 3, (batch, width + 1), generator=generator)
    depth = torch.randint(0, width + 1, (batch,), generator=generator, dtype=torch.int32)
    return drafts, chosen, depth, torch.randn(batch, width + 1, 40, generator=generator)


def check_same(expected: Accepted, actual: Accepted) -> None:
    """Every field is the same, types included."""
    for one, other in zip(expected, actual, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 7))
def test_committed_tokens_are_those_the_engine_agrees_on(seed: int, batch: int, width: int) -> None:
    """Each sequence gets the engine's tokens, its last one as seed, and the row that chose it."""
    drafts, chosen, depth, hidden = round_of(seed, batch, width)

    result = accept_slow(drafts, chosen, depth, hidden)

    for row in range(batch):
        count = int(result.count[row])
        expected = agreed(drafts[row, : depth[row]].tolist(), chosen[row].tolist())
        assert expected == result.new[row, :count].tolist()
        assert result.new[row, count:].tolist() == [0] * (width + 1 - count)
        assert result.seed[row] == expected[-1]
        assert torch.equal(result.hidden[row], hidden[row, count - 1])


def test_invented_acceptance_has_the_shares_asked_for() -> None:
    """Draft i stays in its share of rounds, with the drafts as text and one luck a round."""
    batch = 4000
    how = choosing(*[Sampling(seed=seed) for seed in range(batch)])
    drafts, chosen = torch.full((batch, 3), 5), torch.full((batch, 4), 6)
    depth = torch.full((batch,), 3, dtype=torch.int32)
    shares = torch.tensor([0.9, 0.5, 0.2])

    result = accept_slow(drafts, chosen, depth, torch.zeros(batch, 4, 2), shares, how)

    stayed = (result.new[:, :3] == 5).float().mean(0)
    assert torch.allclose(shares, stayed, atol=0.03)
    assert torch.equal(result.seed, torch.full((batch,), 6))


@pytest.mark.parametrize("invented", [False, True])
def test_kernel_accepts_what_the_twin_accepts(invented: bool) -> None:
    """The kernel's results are the twin's, field by field."""
    pytest.importorskip("triton")
    import tests.fakes.triton_on_cpu  # noqa: F401
    from gemmarunner.kernels.accept_triton import launch_accept

    args = round_of(3, 6, 4)
    shares = torch.tensor([0.8, 0.6, 0.4, 0.2]) if invented else None
    how = choosing(*[Sampling(seed=seed) for seed in range(6)]) if invented else None

    result = Accepted(*launch_accept(*args, shares, how))

    check_same(accept_slow(*args, shares, how), result)
