"""RMS normalisation of rows, together with the residual stream around it.

The residual stream is float32. One program computes one row, so a row never depends on others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels.launch import on_gpu

MAX_NEXTS = 3


class Normed(NamedTuple):
    """The residual stream after a block, and what the next blocks read of it."""

    residual: Tensor  # [rows, hidden] f32
    nexts: tuple[Tensor, ...]  # each [rows, hidden]


class Experts(NamedTuple):
    """The two branches of a mixture-of-experts block, before each one's own norm."""

    dense: Tensor  # [splits, rows, hidden], partial sums
    routed: Tensor  # [splits', rows, hidden], partial sums
    dense_weight: Tensor  # [hidden] f32
    routed_weight: Tensor  # [hidden] f32


def norm(
    x: Tensor,  # [rows, hidden], f32 or the model's dtype
    weight: Tensor,  # [hidden] f32
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """Rows of `x` divided by their root mean square, times `weight`; [rows, hidden] of `dtype`."""
    if not on_gpu(x):
        return norm_slow(x, weight, eps, dtype)
    from gemmarunner.kernels import norm_triton

    return norm_triton.norm(x, weight, eps, dtype)


def add_norm(
    x: Tensor,  # [rows, hidden] f32, the residual stream
    parts: Tensor,  # [splits, rows, hidden], partial sums of a block's result
    post: Tensor,  # [hidden] f32, weight of the norm after the block
    eps: float,
    scale: float,
    nexts: Sequence[Tensor | None],
    dtype: torch.dtype,
) -> Normed:
    """residual = (x + norm(sum of parts) * post) * scale, and its norm by each of `nexts`.

    A next of None yields the residual itself in `dtype`. At most `MAX_NEXTS` of them.
    """
    assert len(nexts) <= MAX_NEXTS
    if not on_gpu(x):
        return add_norm_slow(x, parts, post, eps, scale, nexts, dtype)
    from gemmarunner.kernels import norm_triton

    return Normed(*norm_triton.add_norm(x, parts, post, eps, scale, tuple(nexts), dtype))


def add_experts_norm(
    x: Tensor,  # [rows, hidden] f32, the residual stream
    dense: Tensor,  # [splits, rows, hidden]
    routed: Tensor,  # [splits', rows, hidden]
    dense_weight: Tensor,  # [hidden] f32
    routed_weight: Tensor,  # [hidden] f32
    post: Tensor,  # [hidden] f32
    eps: float,
    scale: float,
    nexts: Sequence[Tensor | None],
    dtype: torch.dtype,
) -> Normed:
    """As `add_norm` of norm(dense) * dense_weight + norm(routed) * routed_weight."""
    assert len(nexts) <= MAX_NEXTS
    branches = Experts(dense, routed, dense_weight, routed_weight)
    if not on_gpu(x):
        return add_experts_norm_slow(x, branches, post, eps, scale, nexts, dtype)
    from gemmarunner.kernels import norm_triton

    found = norm_triton.add_experts_norm(x, branches, post, eps, scale, tuple(nexts), dtype)
    return Normed(*found)


def norm_slow(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """The twin of `norm`."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(dtype)


def add_norm_slow(
    x: Tensor,
    parts: Tensor,
    post: Tensor,
    eps: float,
    scale: float,
    nexts: Sequence[Tensor | None],
    dtype: torch.dtype,
) -> Normed:
    """The twin of `add_norm`."""
    total = parts.float().sum(0)
    residual = (x + norm_slow(total, post, eps, torch.float32)) * scale
    normed = (
        residual.to(dtype) if weight is None else norm_slow(residual, weight, eps, dtype)
        for weight in nexts
    )
    return Normed(residual, tuple(normed))


def add_experts_norm_slow(
    x: Tensor,
    branches: Experts,
    post: Tensor,
    eps: float,
    scale: float,
    nexts: Sequence[Tensor | None],
    dtype: torch.dtype,
) -> Normed:
    """The twin of `add_experts_norm`."""
    dense = norm_slow(branches.dense.float().sum(0), branches.dense_weight, eps, torch.float32)
    routed = norm_slow(branches.routed.float().sum(0), branches.routed_weight, eps, torch.float32)
    return add_norm_slow(x, (dense + routed)[None], post, eps, scale, nexts, dtype)
