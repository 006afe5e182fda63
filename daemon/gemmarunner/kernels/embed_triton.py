"""Triton kernels of `embed`: one program reads one piece of one token's row."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.launch import launch

_PIECE = 1024


def launch_embed(ids: Tensor, table: Tensor, scale: float) -> Tensor:
    """See `embed.embed`."""
    rows, width = ids.shape[0], table.shape[1]
    out = torch.empty(rows, width, dtype=torch.float32, device=ids.device)
    grid = (rows, triton.cdiv(width, _PIECE))
    launch(_embed, grid, ids, table, out, scale, WIDTH=width, PIECE=_PIECE, num_warps=4)
    return out


def launch_ple_rows(
    ids: Tensor,
    table: Tensor,
    context: Tensor,
    weight: Tensor,
    eps: float,
    token_scale: float,
    dtype: torch.dtype,
) -> Tensor:
    """See `embed.ple_rows`.

    Triton passes on whatever address the driver knows as the device's: that of a pinned host
    tensor too, so `table` is handed over as it is and read over the bus.
    """
    splits, rows, width = context.shape
    dim = weight.shape[0]
    out = torch.empty(width // dim, rows, dim, dtype=dtype, device=context.device)
    launch(
        _ple_rows,
        (rows, width // dim),
        *(ids, table, context, weight, out, eps, token_scale, rows),
        WIDTH=width,
        DIM=dim,
        BLOCK=triton.next_power_of_2(dim),
        SPLITS=splits,
        num_warps=1,
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _embed(ids, table, out, scale, WIDTH: tl.constexpr, PIECE: tl.constexpr, PDL: tl.constexpr):  # type: ignore[no-untyped-def]
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0)
    column = tl.program_id(1) * PIECE + tl.arange(0, PIECE)
    token = tl.load(ids + row)
    x = tl.load(table + token * WIDTH + column, mask=column < WIDTH).to(tl.float32)
    tl.store(out + row * WIDTH + column, x * scale, mask=column < WIDTH)


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def _ple_rows(  # type: ignore[no-untyped-def]
    ids,
    table,
    context,
    weight,
    out,
    eps,
    token_scale,
    rows,
    WIDTH: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    row, layer = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    inside = lane < DIM
    gain = tl.load(weight + lane, mask=inside, other=0.0)
    if PDL:
        gdc_wait()
    token = tl.load(ids + row)  # the bus is slow: its read goes first
    x = tl.load(table + token * WIDTH + layer * DIM + lane, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for split in tl.static_range(SPLITS):
        at = (split * rows + row) * WIDTH + layer * DIM + lane
        total += tl.load(context + at, mask=inside, other=0.0).to(tl.float32)
    normed = total * tl.rsqrt(tl.sum(total * total, 0) / DIM + eps) * gain
    at = (layer * rows + row) * DIM + lane
    tl.store(out + at, normed + x * token_scale, mask=inside)
