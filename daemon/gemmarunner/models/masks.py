"""Which keys the rows of one forward see, as slices of the cache and additive masks."""

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import ALIGNED
from gemmarunner.models.attention import Piece


class SeparateMasks:
    """Masks of rows that each see keys chosen by their own position alone.

    A row at position p sees keys from one multiple of `ALIGNED` to the next beyond p; what is
    outside its window is masked. Where p stands in the last `ALIGNED` keys decides the mask, so a
    table of that many rows holds every mask there is, as a slice.
    """

    def __init__(self, window: int | None, device: torch.device, dtype: torch.dtype) -> None:
        self._window = window
        self._table = torch.empty(0, 1, 1, 0, device=device, dtype=dtype)

    def pieces(self, start: int, rows: int, base: int) -> tuple[Piece, ...]:
        """Rows at positions `start` on, those with the same keys together.

        `base` is the position in the cache's slot 0, a multiple of `ALIGNED`.
        """
        pieces = []
        begin = 0
        while begin < rows:
            first, end, same = self._keys(start + begin)
            stop = min(rows, begin + same)
            mask = self._mask((start + begin) % ALIGNED, stop - begin, end - first)
            pieces.append(Piece(begin, stop, first - base, end - first, mask))
            begin = stop
        return tuple(pieces)

    def _keys(self, position: int) -> tuple[int, int, int]:
        """First key, end of keys, and how many rows from `position` on see the same."""
        end = (position // ALIGNED + 1) * ALIGNED
        if self._window is None or position < self._window:
            first, same = 0, end - position
            if self._window is not None:  # the first key moves on at the next multiple
                same = min(same, ALIGNED + self._window - 1 - position)
            return first, end, same
        lowest = position - self._window + 1
        first = lowest // ALIGNED * ALIGNED
        return first, end, min(end - position, first + ALIGNED - lowest)

    def _mask(self, row: int, rows: int, keys: int) -> Tensor:
        width = self._table.shape[-1]
        if width < keys:
            width = max(2 * width, keys)
            mask = band(width - ALIGNED, ALIGNED, 0, width, self._window, self._table)
            self._table = mask[:, None, None]
        return self._table[row : row + rows, :, :, width - keys :]


def common_piece(
    start: int, rows: int, window: int | None, base: int, like: Tensor, blocks: Tensor | None
) -> tuple[Piece, ...]:
    """All rows at once over the keys that any of them sees.

    Rows of one block in `blocks` ([rows] int64, -1: none) also see each other forwards, within
    the window. The mask takes dtype and device from `like`.
    """
    first, end = 0 if window is None else max(0, start - window + 1), start + rows
    mask = band(start, rows, first, end, window, like)
    if blocks is not None:
        same = (blocks[:, None] == blocks) & (blocks >= 0)
        near = band(start, rows, start, end, window, like, backwards_only=False) == 0
        mask[:, start - first :].masked_fill_(same & near, 0)
    return (Piece(0, rows, first - base, end - first, mask),)


def band(
    start: int,
    rows: int,
    first: int,
    end: int,
    window: int | None,
    like: Tensor,
    *,
    backwards_only: bool = True,
) -> Tensor:
    """0 where a row at `start` on sees a key at first..end-1, -inf elsewhere: [rows, keys]."""
    positions = torch.arange(start, start + rows, device=like.device)[:, None]
    distance = positions - torch.arange(first, end, device=like.device)
    hidden = distance < 0 if backwards_only else torch.zeros_like(distance, dtype=torch.bool)
    if window is not None:
        hidden = hidden | (distance >= window)
    mask = torch.zeros(hidden.shape, device=like.device, dtype=like.dtype)
    return mask.masked_fill_(hidden, float("-inf"))
