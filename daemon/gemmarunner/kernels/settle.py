"""What a round leaves behind it: its tokens for the host, and the next round's start in place."""

import torch
from torch import Tensor

from gemmarunner.kernels.accept import Accepted
from gemmarunner.kernels.launch import on_gpu


def settle(
    accepted: Accepted, overflow: Tensor, seed: Tensor, start: Tensor, position: Tensor
) -> Tensor:
    """[B, P + 2] int64: count, overflow, then the new tokens and zeros.

    `overflow` [B] bool. In place, `seed` [B] int64 becomes the last new token, and `start` and
    `position` [B] int32 move on by the count: a round that follows needs to hear nothing more.
    """
    if not on_gpu(seed):
        return settle_slow(accepted, overflow, seed, start, position)
    from gemmarunner.kernels.settle_triton import launch_settle

    return launch_settle(accepted, overflow, seed, start, position)


def settle_slow(
    accepted: Accepted, overflow: Tensor, seed: Tensor, start: Tensor, position: Tensor
) -> Tensor:
    """The same in plain torch."""
    seed.copy_(accepted.seed)
    for place in (start, position):
        place += accepted.count
    return torch.cat((accepted.count[:, None], overflow[:, None], accepted.new), 1)
