"""Rows of the token tables: the scaled embedding, and the per-layer ones with their context."""

import torch
from torch import Tensor

from gemmarunner.kernels.launch import on_gpu


def embed(ids: Tensor, table: Tensor, scale: float) -> Tensor:
    """`table[ids] * scale` as [R, H] f32; `ids` [R] int64, `table` [V, H]."""
    if not on_gpu(ids):
        return embed_slow(ids, table, scale)
    from gemmarunner.kernels.embed_triton import launch_embed

    return launch_embed(ids, table, scale)


def embed_slow(ids: Tensor, table: Tensor, scale: float) -> Tensor:
    """The same in plain torch."""
    return table.index_select(0, ids).float() * scale


def ple_rows(
    ids: Tensor,
    table: Tensor,
    context: Tensor,
    weight: Tensor,
    eps: float,
    token_scale: float,
    dtype: torch.dtype,
) -> Tensor:
    """One small vector per layer and row, [L, R, P] `dtype`.

    `rms(context over P) * weight + table[ids] * token_scale`, with `ids` [R] int64, `table`
    [V, L*P] on the device or in pinned host memory, partial sums `context` [S, R, L*P] and
    `weight` [P] f32. A pinned table is read in place, one row a token, over the bus.
    """
    if not on_gpu(context):
        return ple_rows_slow(ids, table, context, weight, eps, token_scale, dtype)
    from gemmarunner.kernels.embed_triton import launch_ple_rows

    if not (on_gpu(table) or table.is_pinned()):
        # pageable memory cannot be read from a kernel: fetch the rows, which waits for the device
        rows = table.index_select(0, ids.to(table.device)).to(ids.device)
        ids, table = torch.arange(ids.shape[0], device=ids.device), rows
    return launch_ple_rows(ids, table, context, weight, eps, token_scale, dtype)


def ple_rows_slow(
    ids: Tensor,
    table: Tensor,
    context: Tensor,
    weight: Tensor,
    eps: float,
    token_scale: float,
    dtype: torch.dtype,
) -> Tensor:
    """The same in plain torch."""
    shape = (ids.shape[0], -1, weight.shape[0])
    sums = context.float().sum(0).view(shape)
    normed = sums * torch.rsqrt(sums.square().mean(-1, keepdim=True) + eps) * weight
    tokens = table.index_select(0, ids.to(table.device)).to(ids.device)
    return (
        (normed + tokens.float().view(shape) * token_scale).transpose(0, 1).to(dtype).contiguous()
    )
