"""Triton kernel of `accept`: every program finds how far its sequence got and copies its share."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.choose import Choosing
from gemmarunner.kernels.launch import launch
from gemmarunner.kernels.noise_triton import uniform

_PIECE = 1024
_COLUMNS = 16  # at least, so that all usual depths share one kernel
_LUCK_ID = tl.constexpr((1 << 20) - 1)


def launch_accept(
    drafts: Tensor,
    chosen: Tensor,
    depth: Tensor,
    hidden: Tensor,
    synthetic: Tensor | None,
    how: Choosing | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `accept.accept`."""
    batch, per, width = hidden.shape
    new = torch.empty_like(chosen)
    count = torch.empty_like(depth)
    seed = torch.empty(batch, dtype=torch.int64, device=chosen.device)
    row = torch.empty(batch, width, dtype=hidden.dtype, device=hidden.device)
    luck = (how.key, how.position) if how is not None else (chosen, depth)  # unread without
    launch(
        _accept,
        (batch, triton.cdiv(width, _PIECE)),
        *(drafts, chosen, depth, hidden, depth if synthetic is None else synthetic, *luck),
        *(new, count, seed, row, drafts.shape[1], per),
        WIDTH=width,
        PIECE=_PIECE,
        COLUMNS=max(_COLUMNS, triton.next_power_of_2(per)),
        SYNTHETIC=synthetic is not None,
        num_warps=4,
    )
    return new, count, seed, row


@triton.jit(do_not_specialize=["drafted", "per"])  # type: ignore[untyped-decorator]
def _accept(  # type: ignore[no-untyped-def]
    drafts,
    chosen,
    depth,
    hidden,
    synthetic,
    key,
    position,
    new,
    count,
    seed,
    row,
    drafted,
    per,
    WIDTH: tl.constexpr,
    PIECE: tl.constexpr,
    COLUMNS: tl.constexpr,
    SYNTHETIC: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sequence, piece = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, COLUMNS)
    guess = tl.load(drafts + sequence * drafted + column, mask=column < drafted, other=-1)
    choice = tl.load(chosen + sequence * per + column, mask=column < per, other=-2)
    if SYNTHETIC:
        luck = uniform(tl.load(key + sequence), tl.load(position + sequence), _LUCK_ID)
        share = tl.load(synthetic + column, mask=column < drafted, other=0.0)
        stays = share > luck.to(tl.float32)
    else:
        stays = guess == choice
    fails = (stays == 0) | (column >= tl.load(depth + sequence)) | (column >= drafted)
    kept = tl.min(tl.where(fails, column, COLUMNS), 0)
    kept = tl.minimum(kept, per - 1)
    at = piece * PIECE + tl.arange(0, PIECE)
    x = tl.load(hidden + (sequence * per + kept) * WIDTH + at, mask=at < WIDTH)
    tl.store(row + sequence * WIDTH + at, x, mask=at < WIDTH)
    if piece == 0:
        last = tl.load(chosen + sequence * per + kept)
        text = tl.where(column < kept, guess, tl.where(column == kept, last, 0))
        tl.store(new + sequence * per + column, text, mask=column < per)
        tl.store(count + sequence, kept + 1)
        tl.store(seed + sequence, last)
