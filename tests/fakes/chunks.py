"""Chunks of prompts as kernels are told of them."""

import torch
from torch import Tensor

from gemmarunner.kernels.rows import Chunk, Rows


def chunk_of(slot: int, start: int, count: int, device: torch.device | str, rows: int = 0) -> Chunk:
    """`count` rows from position `start` on, padded to `rows` if that is more."""

    def number(value: int) -> Tensor:
        return torch.full((1,), value, dtype=torch.int32, device=device)

    return Chunk(Rows(number(slot), number(start), max(count, rows)), number(count))
