"""The gated MLP, dense and as a mixture of experts."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gemmarunner.models.config import MoEConfig
from gemmarunner.models.linear import Linear, MakeLinear, Plain, make_linear
from gemmarunner.models.norm import make_norm
from gemmarunner.models.weights import Matrix, Take, take_matrices, take_matrix
from gemmarunner.native.linear import can_multiply


class GatedMLP:
    """`down(gelu(gate x) * (up x))`, gate and up as one matrix."""

    def __init__(self, hidden: int, intermediate: int, take: Take, linear: MakeLinear) -> None:
        names = ("gate_proj.weight", "up_proj.weight")
        fused = take_matrix(take, *((name, (intermediate, hidden)) for name in names))
        self.gate_up = linear(fused)
        self.down = linear(take_matrix(take, ("down_proj.weight", (hidden, intermediate))))

    def __call__(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.gelu(gate, approximate="tanh").mul_(up))


class Experts:
    """The routed half of a mixture-of-experts layer; the dense half is a `GatedMLP`."""

    def __init__(
        self, moe: MoEConfig, hidden: int, eps: float, take: Take, linear: MakeLinear
    ) -> None:
        count, width = moe.experts, moe.intermediate
        self.top_k = moe.top_k
        scale = take("router.scale", (hidden,)) * hidden**-0.5
        self.router_norm = make_norm(scale, eps)
        self.router = make_linear(take_matrix(take, ("router.proj.weight", (count, hidden))))
        self.expert_scale = take("router.per_expert_scale", (count,))
        gate_up = take_matrices(take, "experts.gate_up_proj", (count, 2 * width, hidden))
        self.gate_up = _multiplied(gate_up, linear, scale.dtype)
        down = take_matrices(take, "experts.down_proj", (count, hidden, width))
        self.down = _multiplied(down, linear, scale.dtype)

    def __call__(self, routed_by: Tensor, x: Tensor) -> Tensor:
        """Weighted sum of each row's best experts on x; `routed_by` is the residual. [rows, hidden]

        NOTE: reads the chosen experts back to the host: one wait a layer on an accelerator.
        """
        weights, chosen = self._route(routed_by)
        if x.shape[0] == 1:
            return self._one_row(x, weights[0].to(x.dtype), chosen[0].tolist())
        total = torch.zeros_like(x)
        for expert in torch.unique(chosen).tolist():
            rows, rank = torch.where(chosen == expert)
            out = self._run(expert, x[rows])
            total.index_add_(0, rows, (out * weights[rows, rank, None]).to(x.dtype))
        return total

    def _one_row(self, x: Tensor, weights: Tensor, chosen: list[int]) -> Tensor:
        """The weighted sum is one product, and nothing has to be sorted."""
        outs = torch.cat([self._run(expert, x) for expert in sorted(chosen)])
        order = sorted(range(len(chosen)), key=chosen.__getitem__)
        return (weights[order, None] * outs).sum(0, keepdim=True)

    def _run(self, expert: int, x: Tensor) -> Tensor:
        gate, up = self.gate_up[expert](x).chunk(2, -1)
        return self.down[expert](F.gelu(gate, approximate="tanh").mul_(up))

    def _route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and index of each row's experts: [rows, top_k] float32 and int64."""
        scores = self.router(self.router_norm(x))
        shares = torch.softmax(scores, -1, dtype=torch.float32)
        weights, chosen = shares.topk(self.top_k, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        return weights * self.expert_scale[chosen], chosen


def _multiplied(matrices: Iterator[Matrix], linear: MakeLinear, dtype: torch.dtype) -> list[Linear]:
    """Each by `linear`, but plain ones for which there is no kernel stay where they lie."""
    return [
        Plain(matrix)
        if isinstance(matrix, Tensor) and not (dtype is torch.float32 and can_multiply(matrix))
        else linear(matrix)
        for matrix in matrices
    ]
