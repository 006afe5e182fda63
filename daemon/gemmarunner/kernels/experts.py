"""The routed half of a mixture-of-experts layer: who computes a row, and what they make of it."""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gemmarunner.kernels.launch import on_gpu, only_builds

FEW_ROWS = 128  # up to here an expert's weights are read for the rows at hand, not grouped


def route(x: Tensor, weight: Tensor, expert_scale: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Share and index of each row's best experts: [R, top_k] f32 and int32, likeliest first.

    `x` [R, H] is the router-normed residual, `weight` [E, H], `expert_scale` [E] f32. Softmax over
    all experts, the best `top_k` renormalised to one, then scaled. Among equals the lower index
    comes first.
    """
    if not on_gpu(x):
        return route_slow(x, weight, expert_scale, top_k)
    from gemmarunner.kernels.experts_triton import launch_route

    return launch_route(x, weight, expert_scale, top_k)


def route_slow(
    x: Tensor, weight: Tensor, expert_scale: Tensor, top_k: int
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    scores = x.float() @ weight.float().t()
    shares, chosen = scores.softmax(-1).sort(dim=-1, descending=True, stable=True)
    shares, chosen = shares[:, :top_k], chosen[:, :top_k]
    shares = shares / shares.sum(-1, keepdim=True) * expert_scale.float()[chosen]
    return shares, chosen.to(torch.int32)


class PackedExperts(Protocol):
    """Experts' gate and up matrices [E, 2I, H] in a packed form of their own."""

    def experts(self, x: Tensor, down: Any, shares: Tensor, chosen: Tensor) -> Tensor:
        """As the function of this name; `down` [E, H, I] is packed alike."""
        ...


def experts(
    x: Tensor,
    gate_up: Tensor | PackedExperts,
    down: Tensor | PackedExperts,
    shares: Tensor,
    chosen: Tensor,
) -> Tensor:
    """Each row's weighted sum over its experts, as partial sums [S, R, H] f32: S = top_k or 1.

    `x` [R, H], `gate_up` [E, 2I, H] (gate rows, then up rows), `down` [E, H, I], `shares` and
    `chosen` [R, top_k] from `route`. Up to `FEW_ROWS` rows read only the experts hit, and a row
    does not depend on the others; more are grouped by expert.
    """
    if not isinstance(gate_up, Tensor):
        return gate_up.experts(x, down, shares, chosen)
    assert isinstance(down, Tensor)
    if not on_gpu(x):
        return experts_slow(x, gate_up, down, shares, chosen)
    from gemmarunner.kernels.experts_triton import launch_experts

    if x.shape[0] > FEW_ROWS:
        if only_builds():  # no kernel of ours, and `chosen` has no meaning
            return x.new_empty((1, *x.shape), dtype=torch.float32)
        return experts_grouped(x, gate_up, down, shares, chosen)
    return launch_experts(x, gate_up, down, shares, chosen)


def experts_slow(
    x: Tensor, gate_up: Tensor, down: Tensor, shares: Tensor, chosen: Tensor
) -> Tensor:
    """The same in plain torch, one row and expert at a time; part s is of the s-th best."""
    parts = torch.empty(chosen.shape[1], *x.shape, dtype=torch.float32, device=x.device)
    for row, picked in enumerate(chosen.tolist()):
        for rank, expert in enumerate(picked):
            gate, up = (x[row].float() @ gate_up[expert].float().t()).chunk(2)
            hidden = (F.gelu(gate, approximate="tanh") * up).to(x.dtype)
            parts[rank, row] = shares[row, rank] * (hidden.float() @ down[expert].float().t())
    return parts


def experts_grouped(
    x: Tensor, gate_up: Tensor, down: Tensor, shares: Tensor, chosen: Tensor
) -> Tensor:
    """The same for a prompt: rows sorted by expert, one grouped product for each matrix."""
    top_k = chosen.shape[1]
    flat = chosen.reshape(-1).long()
    order = flat.argsort(stable=True)
    ends = torch.bincount(flat, minlength=gate_up.shape[0]).cumsum(0).to(torch.int32)
    gate, up = _grouped(x[order // top_k], gate_up, ends).chunk(2, -1)
    outs = _grouped(F.gelu(gate, approximate="tanh") * up, down, ends)
    back = torch.empty_like(outs).index_copy_(0, order, outs).view(*chosen.shape, -1)
    return (back.float() * shares[..., None]).sum(1)[None]


def _grouped(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """`rows[i] @ weights[e].T` for the rows up to ends[e]; [rows, N]."""
    if rows.is_cuda and rows.dtype is torch.bfloat16:
        return torch._grouped_mm(rows, weights.transpose(1, 2), offs=ends)
    parts, start = [], 0
    for expert, end in enumerate(ends.tolist()):  # NOTE: one wait for the device
        parts.append(rows[start:end] @ weights[expert].t())
        start = end
    return torch.cat(parts)
