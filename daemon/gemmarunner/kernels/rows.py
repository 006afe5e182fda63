"""The rows of one step: which slots their sequences lie in and where in the text they stand."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """B sequences of `per` successive rows each; row r belongs to sequence r // per."""

    slot: Tensor  # [B] int32, the cache slot of each sequence
    start: Tensor  # [B] int32, the position of each sequence's first row
    per: int  # rows a sequence, called P


class Chunk(NamedTuple):
    """Successive rows of one sequence's prompt; those behind the first `length` are padding."""

    rows: Rows
    length: Tensor  # [1] int32


def row_positions(rows: Rows) -> Tensor:
    """The position of every row, [B * per] int64."""
    steps = torch.arange(rows.per, device=rows.start.device)
    return (rows.start.long()[:, None] + steps).reshape(-1)


def row_slots(rows: Rows) -> Tensor:
    """The slot of every row, [B * per] int64."""
    return rows.slot.long().repeat_interleave(rows.per)
