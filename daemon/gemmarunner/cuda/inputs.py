"""What the host tells a round of each of its sequences: one small buffer, one copy to the device.

A round moves its seeds, starts and positions on by itself, so one that follows with the same
sequences needs at most other depths.

```
key | seed | place | slot | start | depth | top_k | position | window | temperature | top_p | min_p
| repeat | presence | frequency | recent
```
Each field has a number a sequence, the last one some, and room for the widest batch, rounded up to
16 bytes; a view of the buffer on either side is a field, so a graph reads them without another
kernel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gemmarunner.engine.sampling import Sampler, Stream
from gemmarunner.kernels.choose import MAX_TOP_K, Choosing, fits
from gemmarunner.kernels.penalise import RECENT, Bending, bends
from gemmarunner.kernels.rows import Rows
from gemmarunner.kernels.settle import Places

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
    text: Sequence[int] = ()  # as far as the choice is bent by it


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
    window: Tensor  # int32; how much of the text bends the choice
    temperature: Tensor  # f32
    top_p: Tensor  # f32
    min_p: Tensor  # f32
    repeat: Tensor  # f32
    presence: Tensor  # f32
    frequency: Tensor  # f32
    recent: Tensor  # int32 [B, RECENT]

    def rows(self, per: int) -> Rows:
        """The rows of a step with `per` rows a sequence."""
        return Rows(self.slot, self.start, per)

    @property
    def choosing(self) -> Choosing:
        """How each sequence chooses."""
        return Choosing(
            self.temperature, self.top_k, self.top_p, self.min_p, self.key, self.position
        )

    @property
    def bending(self) -> Bending:
        """How the text so far bends each sequence's choices."""
        return Bending(
            self.window, self.repeat, self.presence, self.frequency, self.recent, self.position
        )

    @property
    def places(self) -> Places:
        """What a round moves on."""
        return Places(self.seed, self.start, self.position, self.recent)


_DTYPES = (_LONG,) * 3 + (_INT,) * 6 + (_FLOAT,) * 6  # of the fields with one number


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
        nbytes = sum(_size(dtype, width) for dtype in _DTYPES) + width * RECENT * _INT.itemsize
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
        *written, recent = self._page.written
        for field, column in zip(written, zip(*rows, strict=True), strict=True):
            field[:batch] = column
        for index in range(batch):
            _write_text(recent[index], asks[min(index, len(asks) - 1)])
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
    sampling = sampler.sampling
    return fits(sampling) and bends(sampling) and sampler.suppress_ids == suppressed


def _write_text(recent: npt.NDArray[np.generic], ask: Ask) -> None:
    """The end of the text at its places, if it bends the choice."""
    known = ask.start + 1
    text = ask.text[-min(known, RECENT) :] if ask.sampler.bent else ()
    recent[np.arange(known - len(text), known) % RECENT] = text


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
        sampling.repeat_last_n if ask.sampler.bent and bends(sampling) else 0,
        max(sampling.temperature, 0.0),
        sampling.top_p,
        sampling.min_p,
        sampling.repeat_penalty,
        sampling.presence_penalty,
        sampling.frequency_penalty,
    )


def _size(dtype: torch.dtype, width: int) -> int:
    return -(-width * dtype.itemsize // _ALIGNED) * _ALIGNED


def _fields(buffer: Tensor, width: int) -> list[Tensor]:
    """Views of `buffer`, [width] each, and [width, RECENT]."""
    parts, begin = [], 0
    for dtype in _DTYPES:
        parts.append(buffer[begin:].view(dtype)[:width])
        begin += _size(dtype, width)
    return [*parts, buffer[begin:].view(_INT).view(width, RECENT)]
