"""Muon for the matrices of layers, AdamW for everything else, and the wall-clock schedule."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
TABLES = ("embed_tokens.weight", "embed_tokens_per_layer.weight", "centroids.weight")


def orthogonal(gradients: Tensor) -> Tensor:
    """Return `gradients` [count, rows, columns], rows <= columns, with singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    x: Tensor = gradients / (gradients.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x


@dataclass(slots=True)
class _Group:
    """Matrices of one shape (tall ones are transposed) and their momentum."""

    parameters: list[nn.Parameter]
    momentum: Tensor  # [count, rows, columns] f32, rows <= columns


class Muon:
    """Momentum steps made orthogonal, batched over matrices of equal shape."""

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float = 0.95) -> None:
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            by_shape[tuple(sorted(parameter.shape))].append(parameter)
        self.decay = momentum
        self.groups = [
            _Group(same, torch.zeros(len(same), *shape, device=same[0].device))
            for shape, same in by_shape.items()
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix by `rate` along its orthogonal momentum and drop the gradients."""
        for group in self.groups:
            flat = torch.stack([_wide(_gradient(p)) for p in group.parameters])
            group.momentum.lerp_(flat, 1 - self.decay)
            ahead = flat.lerp_(group.momentum, self.decay)
            dtype = torch.bfloat16 if flat.is_cuda else torch.float32
            moves = orthogonal(ahead.to(dtype)).float()
            _move(group.parameters, list(moves.unbind()), rate)


def _move(parameters: list[nn.Parameter], moves: list[Tensor], rate: float) -> None:
    """Subtract the moves, scaled up for tall matrices, and drop the gradients."""
    for tall in (False, True):
        chosen = [i for i, p in enumerate(parameters) if (p.shape[0] > p.shape[1]) == tall]
        if not chosen:
            continue
        some: list[Tensor] = [parameters[i] for i in chosen]
        scale = max(1.0, some[0].shape[0] / some[0].shape[1]) ** 0.5
        torch._foreach_add_(
            some,
            [_wide_as(p, moves[i]) for i, p in zip(chosen, some, strict=True)],
            alpha=-rate * scale,
        )
    for parameter in parameters:
        parameter.grad = None


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _wide_as(parameter: Tensor, move: Tensor) -> Tensor:
    return move if parameter.shape[0] <= parameter.shape[1] else move.mT


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


class Optimizer:
    """Both optimizers of a model behind one step."""

    def __init__(self, model: nn.Module, muon_rate: float, adam_rate: float) -> None:
        trained = dict(model.named_parameters())
        matrices = {n for n, p in trained.items() if p.ndim == 2 and not n.endswith(TABLES)}
        others = [p for n, p in trained.items() if n not in matrices]
        self.muon_rate, self.adam_rate = muon_rate, adam_rate
        self.muon = Muon(p for n, p in trained.items() if n in matrices)
        self.adam = torch.optim.AdamW(
            others, lr=adam_rate, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=True
        )

    def step(self, scale: float) -> None:
        """Step with both rates times `scale` and drop the gradients."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.muon.step(self.muon_rate * scale)


def rate_scale(progress: float, step: int, warm_up: int = 20, decay: float = 0.6) -> float:
    """Return the share of the full rate: a short rise by steps, a fall over the last `decay`.

    `progress` is the share of the training time that has passed.
    """
    falling = min(1.0, max(0.0, 1.0 - progress) / decay)
    return min(1.0, (step + 1) / warm_up) * falling
