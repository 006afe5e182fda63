"""What a round leaves behind it: its tokens for the host, and the next round's start in place."""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels.accept import Accepted
from gemmarunner.kernels.launch import on_gpu


class Places(NamedTuple):
    """Where the next round of B sequences begins; a round moves it on."""

    seed: Tensor  # [B] int64; the text's last token
    start: Tensor  # [B] int32; its position
    position: Tensor  # [B] int32; the text index of the token that comes next
    recent: Tensor  # [B, N] int32; the token at index i of the text lies at i % N


def settle(accepted: Accepted, overflow: Tensor, places: Places) -> Tensor:
    """[B, P + 2] int64: count, overflow, then the new tokens and zeros.

    `overflow` [B] bool. `places` move on in place: a round that follows needs to hear nothing more.
    """
    if not on_gpu(overflow):
        return settle_slow(accepted, overflow, places)
    from gemmarunner.kernels.settle_triton import launch_settle

    return launch_settle(accepted, overflow, places)


def settle_slow(accepted: Accepted, overflow: Tensor, places: Places) -> Tensor:
    """The same in plain torch."""
    sequence, step = (torch.arange(count) for count in accepted.new.shape)
    index = (places.position[:, None] + step) % places.recent.shape[1]
    kept = step < accepted.count[:, None]
    whose = sequence[:, None].expand_as(kept)
    places.recent[whose[kept], index[kept].long()] = accepted.new[kept].to(torch.int32)
    places.seed.copy_(accepted.seed)
    for place in (places.start, places.position):
        place += accepted.count
    return torch.cat((accepted.count[:, None], overflow[:, None], accepted.new), 1)
