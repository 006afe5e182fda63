"""Muon's steps are orthogonal and the schedule rises, holds and falls."""

import pytest
import torch

from train.model import Drafter, Target
from train.optim import TABLES, Muon, Optimizer, orthogonal, rate_scale
from train.shapes import TINY, TINY_DRAFTER


def test_orthogonal_moves_have_singular_values_near_one() -> None:
    """Whatever the scale of the gradients."""
    torch.manual_seed(0)
    moves = orthogonal(torch.randn(3, 16, 40) * 1e-3)
    values = torch.linalg.svdvals(moves)

    assert values.min() > 0.4
    assert values.max() < 1.4


def test_tall_and_wide_matrices_move_alike() -> None:
    """A matrix and its transpose take transposed steps, the tall one longer by the root."""
    torch.manual_seed(0)
    gradient = torch.randn(8, 32)
    wide, tall = torch.nn.Parameter(torch.zeros(8, 32)), torch.nn.Parameter(torch.zeros(32, 8))
    wide.grad, tall.grad = gradient.clone(), gradient.T.clone()
    Muon([wide, tall]).step(0.1)

    torch.testing.assert_close(tall.detach(), wide.detach().T * 2.0)
    assert wide.grad is None
    assert tall.grad is None


@pytest.mark.parametrize("model", [Target(TINY), Drafter(TINY_DRAFTER, TINY)])
def test_every_parameter_moves_and_tables_go_to_adam(model: torch.nn.Module) -> None:
    """Embeddings, heads, norms and scalars are Adam's, all other matrices Muon's."""
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = Optimizer(model, 0.02, 4e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step(1.0)
    matrices = {id(p) for group in optimizer.muon.groups for p in group.parameters}
    for (name, after), old in zip(model.named_parameters(), before, strict=True):
        assert not torch.equal(after, old), name
        assert (id(after) in matrices) == (after.ndim == 2 and not name.endswith(TABLES)), name


def test_the_rate_rises_holds_and_falls_to_nothing() -> None:
    """A few steps up, full until two fifths of the time, then straight down."""
    scales = [rate_scale(progress, 1000) for progress in (0.0, 0.4, 0.7, 1.0)]

    assert rate_scale(0.0, 4) == 0.25
    assert scales == pytest.approx([1.0, 1.0, 0.5, 0.0])
