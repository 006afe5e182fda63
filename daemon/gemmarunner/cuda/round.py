"""A whole round as one function on static buffers: draft, verify, choose, accept.

Nothing in it waits for the device or branches on what tensors hold, so that one graph can hold it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.cuda.drafter import CudaDrafter
from gemmarunner.cuda.inputs import Fields
from gemmarunner.cuda.slots import Slots
from gemmarunner.cuda.target import CudaTarget
from gemmarunner.kernels.accept import accept
from gemmarunner.kernels.choose import choose
from gemmarunner.kernels.penalise import penalise
from gemmarunner.kernels.settle import settle


class RoundOutputs(NamedTuple):
    """What a round leaves on the device; B sequences, K drafts each."""

    packed: Tensor  # [B, K + 3] int64: see `kernels.settle`
    drafts: Tensor  # [B, K] int64
    hidden: Tensor  # [B, K + 1, hidden] T, the final row of every verified token


class CudaRound:
    """The pair and the slots that its rounds read and move on."""

    def __init__(
        self,
        target: CudaTarget,
        drafter: CudaDrafter | None,
        slots: Slots,
        synthetic: Tensor | None = None,
    ) -> None:
        """`synthetic` [max depth] f32 invents acceptance, for benchmarks: see `kernels.accept`."""
        self._target = target
        self.drafter = drafter  # written by the backend, between rounds
        self._slots = slots
        self._synthetic = synthetic

    @torch.inference_mode()
    def __call__(self, fields: Fields, depth: int) -> RoundOutputs:
        """Runs a round with `depth` drafts for every sequence; `fields.depth` of them count.

        Afterwards the slots' keys and values hold all verified rows, their hidden rows are those
        that chose the last new tokens, and `fields` say where the next round begins.
        """
        batch, per = fields.seed.shape[0], depth + 1
        drafts = self._drafts(fields, depth)
        ids = torch.cat((fields.seed[:, None], drafts), 1)
        hidden = self._target.step(ids.view(-1), fields.rows(per), self._slots)
        logits = self._target.logits(hidden)
        penalise(logits, drafts, fields.bending)
        how = fields.choosing
        chosen, overflow = choose(logits, how, per, self._target.suppressed)
        hidden = hidden.view(batch, per, -1)
        synthetic = None if self._synthetic is None else self._synthetic[:depth]
        accepted = accept(drafts, chosen.view(batch, per), fields.depth, hidden, synthetic, how)
        self._slots.hidden.index_copy_(0, fields.place, accepted.hidden)
        packed = settle(accepted, overflow, fields.places)
        return RoundOutputs(packed, drafts, hidden)

    def _drafts(self, fields: Fields, depth: int) -> Tensor:
        """[B, depth] int64 guesses of what follows the seeds."""
        if depth == 0:
            return fields.seed.new_empty((fields.seed.shape[0], 0))
        assert self.drafter is not None
        drafter, rows, how = self.drafter, fields.rows(1), fields.choosing
        tokens, hidden = fields.seed, self._slots.hidden.index_select(0, fields.place)
        drafts: list[Tensor] = []
        for offset in range(depth):
            normed = drafter.step(tokens, hidden, rows, self._slots)
            tokens = drafter.guess(normed, how, offset)
            drafts.append(tokens)
            if offset + 1 < depth:
                hidden = drafter.next_hidden(normed)
        return torch.stack(drafts, 1)
