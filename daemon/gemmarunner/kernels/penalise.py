"""Penalties of the recent text on rows of logits, for many requests at once and in place.

What `engine.penalties.Penalties.apply` computes, over the last `RECENT` tokens at most.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.penalties import Penalties
from gemmarunner.engine.request import Sampling
from gemmarunner.kernels.launch import on_gpu

RECENT: Final = 256  # tokens that may be looked back on


class Bending(NamedTuple):
    """How the text so far bends each of B sequences' choices; all on the device."""

    window: Tensor  # [B] int32; tokens looked back on, at most RECENT; 0: nothing is bent
    repeat: Tensor  # [B] f32; 1 = off
    presence: Tensor  # [B] f32
    frequency: Tensor  # [B] f32
    recent: Tensor  # [B, RECENT] int32; the token at index i of the text lies at i % RECENT
    position: Tensor  # [B] int32; the text index of the token that a sequence's first row chooses


def bends(sampling: Sampling) -> bool:
    """Whether `penalise` does all that this request's penalties ask for."""
    penalties = Penalties.of(sampling)
    return not penalties.active or 0 < penalties.window <= RECENT


def penalise(logits: Tensor, drafts: Tensor, how: Bending) -> None:
    """Lessens `logits` [B * P, V] f32 of tokens in the text before each row.

    A sequence's row r chooses the token at `how.position` + r; `drafts` [B, K] int64 are the tokens
    that the rows behind the first take for chosen, P <= K + 1.
    """
    if not on_gpu(logits):
        penalise_slow(logits, drafts, how)
        return
    from gemmarunner.kernels.penalise_triton import launch_penalise

    launch_penalise(logits, drafts, how)


def penalise_slow(logits: Tensor, drafts: Tensor, how: Bending) -> None:
    """The same in plain torch."""
    batch = len(how.window)
    rows = logits.view(batch, -1, logits.shape[1])
    for own, guesses, window, *how_much, recent, position in zip(rows, drafts, *how, strict=True):
        if window:
            past = torch.arange(int(position) - RECENT, int(position)).clamp(min=0) % RECENT
            text = recent[past][-int(position) :].long()  # no more than there is of it
            history = torch.cat((text, guesses))[: len(text) + len(own) - 1]
            repeat, presence, frequency = (number.item() for number in how_much)
            penalties = Penalties(repeat, presence, frequency, int(window))
            own.copy_(penalties.apply(own, history, own.shape[1], None))
