"""What the host tells a round of each of its sequences: one small buffer, one copy to the device.

A round moves its seeds, starts and positions on by itself, so one that follows with the same
sequences needs at most other depths.

```
key | seed | place | slot | start | depth | top_k | position | temperature | top_p | min_p
```
Each field has one number a sequence and room for the widest batch, rounded up to 16 bytes; a view
of the buffer on either side is a field, so a graph reads them without another kernel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gemmarunner.engine.sampling import Sampler, Stream
from gemmarunner.kernels.choose import MAX_TOP_K, Choosing, fits
from gemmarunner.kernels.rows import Rows

_LONG, _INT, _FLOAT = torch.int64, torch.int32, torch.float32
_GUESSED = 64  # what a draft sees where the request's own choice looks at all tokens
_ALIGNED = 16  # bytes


class Ask(NamedTuple):
    """What one sequence wants of a round."""

    slot: int
    start: int  # committed positions
    seed: int  # the text's last token
    depth: int  # how many drafts count
    sampler: Sampler


class Fields(NamedTuple):
    """The buffer's fields, [B] each."""

    key: Tensor  # int64; of the stream of noise for choices
    seed: Tensor  # int64; token whose row comes first
    place: Tensor  # int64; the slot, as an index
    slot: Tensor  # int32
    start: Tensor  # int32; position of the first row
    depth: Tensor  # int32; how many drafts count
    top_k: Tensor  # int32
    position: Tensor  # int32; text index of the token that the first row chooses
    temperature: Tensor  # f32
    top_p: Tensor  # f32
    min_p: Tensor  # f32

    def rows(self, per: int) -> Rows:
        """The rows of a step with `per` rows a sequence."""
        return Rows(self.slot, self.start, per)

    @property
    def choosing(self) -> Choosing:
        """How each sequence chooses."""
        return Choosing(
            self.temperature, self.top_k, self.top_p, self.min_p, self.key, self.position
        )


_DTYPES = (_LONG,) * 3 + (_INT,) * 5 + (_FLOAT,) * 3


class _Page:
    """The buffer's twin on the host."""

    def __init__(self, nbytes: int, width: int, pinned: bool) -> None:
        self.buffer = torch.zeros(nbytes, dtype=torch.uint8, pin_memory=pinned)
        self.fields = Fields(*_fields(self.buffer, width))
        self.written: list[npt.NDArray[np.generic]] = [field.numpy() for field in self.fields]


class Inputs:
    """The buffer on the device, and two pages on the host, written in turns.

    A page's copy may wait behind one round under way, so two are enough.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        """For batches of up to `width` sequences."""
        nbytes = sum(_size(dtype, width) for dtype in _DTYPES)
        self._device = torch.zeros(nbytes, dtype=torch.uint8, device=device)
        self._page, self._next = (_Page(nbytes, width, device.type == "cuda") for _ in range(2))
        self._width = width
        self._depths: list[int] = []  # as last sent

    def fields(self, batch: int) -> Fields:
        """The device's fields for a batch of `batch` sequences."""
        return Fields(*(field[:batch] for field in _fields(self._device, self._width)))

    def write(self, asks: Sequence[Ask], batch: int) -> None:
        """Writes down what `asks` say; up to `batch` sequences the last one is repeated.

        A repeated sequence computes the same numbers once more and writes them to the same places,
        so it needs no slot of its own. No round may be under way.
        """
        rows = [_numbers(ask) for ask in asks]
        rows += rows[-1:] * (batch - len(rows))
        self._turn_page()
        for field, column in zip(self._page.written, zip(*rows, strict=True), strict=True):
            field[:batch] = column
        self._depths = [ask.depth for ask in asks]

    def send(self) -> None:
        """Enqueues the copy to the device of what was written down."""
        self._device.copy_(self._page.buffer, non_blocking=True)

    def send_depths(self, depths: Sequence[int], batch: int) -> None:
        """All other fields stay as the last round leaves them; it may be under way."""
        if list(depths) == self._depths:
            return
        self._depths = list(depths)
        self._turn_page()
        written = self._page.fields.depth[:batch]
        written.copy_(torch.tensor(self._depths + self._depths[-1:] * (batch - len(depths))))
        self.fields(batch).depth.copy_(written, non_blocking=True)

    def _turn_page(self) -> None:
        self._page, self._next = self._next, self._page


def fits_device(sampler: Sampler, suppressed: tuple[int, ...]) -> bool:
    """Whether `kernels.choose` chooses this request's tokens just as its sampler would."""
    return fits(sampler.sampling) and sampler.suppress_ids == suppressed


def _numbers(ask: Ask) -> tuple[int | float, ...]:
    sampling, key = ask.sampler.sampling, ask.sampler.key(Stream.CHOICE)
    top_k = sampling.top_k if sampling.top_k > 0 else _GUESSED
    return (
        key - (1 << 64) if key >> 63 else key,
        ask.seed,
        ask.slot,
        ask.slot,
        ask.start,
        ask.depth,
        min(top_k, MAX_TOP_K),
        ask.start + 1,
        max(sampling.temperature, 0.0),
        sampling.top_p,
        sampling.min_p,
    )


def _size(dtype: torch.dtype, width: int) -> int:
    return -(-width * dtype.itemsize // _ALIGNED) * _ALIGNED


def _fields(buffer: Tensor, width: int) -> list[Tensor]:
    """Views of `buffer`, [width] each."""
    parts, begin = [], 0
    for dtype in _DTYPES:
        parts.append(buffer[begin:].view(dtype)[:width])
        begin += _size(dtype, width)
    return parts
