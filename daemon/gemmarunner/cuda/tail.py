"""The end of a prompt as one graph: its last row through the rest of the layers, up to logits."""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.cuda.graphs import Capturer
from gemmarunner.cuda.seams import Chain
from gemmarunner.cuda.slots import Slots
from gemmarunner.cuda.target import CudaTarget, Tail


class Ending(NamedTuple):
    """What a prompt's last row comes to; valid until the next one."""

    hidden: Tensor  # [1, hidden] T, the final row
    logits: Tensor  # [1, vocabulary] f32


class TailGraph:
    """Finishes prompts; on a GPU by a graph on a copy of what `CudaTarget.prompt` left.

    Some 250 small kernels on one row: called one by one, they wait for the host.
    """

    def __init__(self, target: CudaTarget, slots: Slots) -> None:
        self._target = target
        self._slots = slots
        self._captured: tuple[Chain, Ending] | None = None
        self._static: Tail | None = None

    @torch.inference_mode()
    def __call__(self, tail: Tail) -> Ending:
        """The prompt's final hidden row and logits."""
        if self._captured is None or self._static is None:
            return self.run_plainly(tail)
        for static, given in zip(_tensors(self._static), _tensors(tail), strict=True):
            static.copy_(given)
        graph, ending = self._captured
        graph.replay()
        return ending

    @torch.inference_mode()
    def run_plainly(self, tail: Tail) -> Ending:
        """The same call by call."""
        hidden = self._target.finish(tail, self._slots)
        return Ending(hidden, self._target.logits(hidden))

    @torch.inference_mode()
    def capture(self, tail: Tail) -> None:
        """Captures the graph, with `tail` as its inputs from now on."""
        self._static = tail
        self._captured = Capturer(self._target.device)(lambda: self.run_plainly(tail))

    def clear(self) -> None:
        """Frees the graph."""
        self._captured = self._static = None


def _tensors(tail: Tail) -> list[Tensor]:
    found = [tail.x, tail.normed, tail.rows.slot, tail.rows.start]
    return found if tail.ple is None else [*found, tail.ple]
