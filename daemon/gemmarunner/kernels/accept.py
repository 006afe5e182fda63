"""Which drafts of a round stay, for many sequences at once, and what seeds their next round."""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels.choose import Choosing
from gemmarunner.kernels.launch import on_gpu
from gemmarunner.kernels.noise import uniform

LUCK_ID = (1 << 20) - 1  # the number of a place in the text that no token's noise can be


class Accepted(NamedTuple):
    """What a round adds to each sequence."""

    new: Tensor  # [B, P] int64; the committed tokens, then zeros
    count: Tensor  # type: ignore[assignment]  # [B] int32; how many are committed: 1..depth+1
    seed: Tensor  # [B] int64; the last committed token
    hidden: Tensor  # [B, H]; the row that chose it


def accept(
    drafts: Tensor,
    chosen: Tensor,
    depth: Tensor,
    hidden: Tensor,
    synthetic: Tensor | None = None,
    how: Choosing | None = None,
) -> Accepted:
    """The drafts the target agrees with, then the first token it chose otherwise.

    `drafts` [B, K] int64, `chosen` [B, P] int64 with P > K, `depth` [B] int32 (how many of the K
    drafts count), `hidden` [B, P, H]. Benchmarks alone set `synthetic` [K] f32, the share of rounds
    in which draft i shall stay, whatever the target chose; it needs `how` for its luck.
    """
    assert synthetic is None or how is not None, "invented acceptance needs a stream of noise"
    if not on_gpu(chosen):
        return accept_slow(drafts, chosen, depth, hidden, synthetic, how)
    from gemmarunner.kernels.accept_triton import launch_accept

    return Accepted(*launch_accept(drafts, chosen, depth, hidden, synthetic, how))


def accept_slow(
    drafts: Tensor,
    chosen: Tensor,
    depth: Tensor,
    hidden: Tensor,
    synthetic: Tensor | None = None,
    how: Choosing | None = None,
) -> Accepted:
    """The same in plain torch."""
    batch, rows = chosen.shape
    width = drafts.shape[1]
    stays = drafts == chosen[:, :width]
    if synthetic is not None and how is not None:
        luck = uniform(how.key, how.position, torch.full_like(how.key, LUCK_ID)[:, None])
        stays = synthetic > luck.float()
    stays = stays & (torch.arange(width, device=chosen.device) < depth[:, None])
    kept = stays.long().cumprod(1).sum(1)
    column = torch.arange(rows, device=chosen.device).expand(batch, rows)
    seed = chosen.gather(1, kept[:, None])
    padded = torch.cat((drafts, drafts.new_zeros(batch, rows - width)), 1)
    new = torch.where(column < kept[:, None], padded, seed).masked_fill(column > kept[:, None], 0)
    row = hidden[torch.arange(batch, device=chosen.device), kept]
    return Accepted(new, (kept + 1).to(torch.int32), seed[:, 0], row)
