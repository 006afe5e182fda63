"""Reads chunks of prompts; on a GPU those of few rows as graphs, padded to the next of some sizes.

A chunk is some twenty kernels a layer. Called one by one, they take 15 ms of the host for E4B,
where the device needs a third of that for 512 rows.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gemmarunner.cuda.graphs import Capturer
from gemmarunner.cuda.seams import Chain
from gemmarunner.cuda.slots import Slots
from gemmarunner.cuda.target import CudaTarget, Tail
from gemmarunner.kernels.linear import MAX_TILE
from gemmarunner.kernels.rows import Chunk, Rows

SIZES = (32, 64, 128, 256, 512)
_IDS_AT = 48  # bytes; slot, start and length lie before, 16 bytes each


class PromptGraphs:
    """What reads prompts into slots."""

    def __init__(self, target: CudaTarget, slots: Slots, longest: int) -> None:
        """For chunks of up to `longest` rows."""
        self._target = target
        self._slots = slots
        most = min(longest, SIZES[-1] if target.multiplies_plainly else MAX_TILE)
        self._sizes = [size for size in SIZES if size <= most]
        self._inputs = torch.zeros(_nbytes(most), dtype=torch.uint8, device=target.device)
        self._captured: dict[int, tuple[Chain, Tail]] = {}

    def __call__(self, slot: int, tokens: Sequence[int]) -> Tail:
        """Reads `tokens` into `slot` from its length on; what is left of the last row."""
        start, count = self._slots.length(slot), len(tokens)
        self._slots.write_ahead(slot, count)
        self._slots.advance(slot, count)
        size = next((size for size in self._sizes if size >= count), count)
        graph, tail = self._captured.get(size, (None, None))
        if graph is None or tail is None:
            padded = size if self._target.device.type != "cuda" else count
            return self._read(self._sent(slot, start, tokens, padded), padded)
        inputs = self._sent(slot, start, tokens, size)
        self._inputs[: len(inputs)].copy_(inputs, non_blocking=True)
        graph.replay()
        return _copy(tail)

    @torch.inference_mode()
    def capture(self) -> None:
        """Captures all sizes; garbage is in the first slot afterwards."""
        capturer = Capturer(self._target.device)
        for size in reversed(self._sizes):
            inputs = self._sent(0, 0, [0] * size, size)
            self._inputs[: len(inputs)].copy_(inputs, non_blocking=True)
            self._captured[size] = capturer(partial(self._read, self._inputs, size))

    def clear(self) -> None:
        """Frees the graphs."""
        self._captured.clear()

    @torch.inference_mode()
    def _read(self, inputs: Tensor, size: int) -> Tail:
        slot, start, length = (inputs[at : at + 4].view(torch.int32) for at in (0, 16, 32))
        ids = inputs[_IDS_AT : _nbytes(size)].view(torch.int64)
        return self._target.read(ids, Chunk(Rows(slot, start, size), length), self._slots)

    def _sent(self, slot: int, start: int, tokens: Sequence[int], size: int) -> Tensor:
        """The inputs of a chunk of `size` rows, on the device."""
        written = torch.zeros(_nbytes(size), dtype=torch.uint8)
        written[:_IDS_AT].view(torch.int32)[::4] = torch.tensor([slot, start, len(tokens)])
        written[_IDS_AT:].view(torch.int64)[: len(tokens)] = torch.tensor(tokens)
        if self._target.device.type == "cuda":
            written = written.pin_memory()
        return written.to(self._target.device, non_blocking=True)


def _nbytes(size: int) -> int:
    return _IDS_AT + 8 * size


def _copy(tail: Tail) -> Tail:
    """The next chunk writes over what its graph left."""
    ple = None if tail.ple is None else tail.ple.clone()
    rows = Rows(tail.rows.slot.clone(), tail.rows.start.clone(), tail.rows.per)
    return Tail(tail.x.clone(), tail.normed.clone(), ple, tail.layer, rows)
