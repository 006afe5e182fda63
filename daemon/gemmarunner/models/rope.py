"""Rotary position tables, including Gemma 4's proportional kind that leaves most pairs still.

Pairs are `(j, j + head_dim / 2)`. The frequency of pair j is `theta^(-2j / head_dim)` with the
whole head dim as denominator, also where only the first `rotated_pairs` turn. The sine table
carries the sign of the rotation: rotated is `x * cos + roll(x, head_dim / 2) * sin`.
"""

import torch
from torch import Tensor

from gemmarunner.models.config import RopeConfig

_FIRST_POSITIONS = 1024


def frequencies(rope: RopeConfig, head_dim: int, device: torch.device) -> Tensor:
    """Angle per position of each pair, [head_dim / 2] f32; 0 where a pair stands still."""
    pairs = torch.arange(rope.rotated_pairs, dtype=torch.float32, device=device)
    angles = torch.zeros(head_dim // 2, dtype=torch.float32, device=device)
    angles[: rope.rotated_pairs] = 1.0 / rope.theta ** (2 * pairs / head_dim) / rope.factor
    return angles


class RopeTable:
    """Cosines and sines by position, grown as positions are asked for."""

    def __init__(
        self, rope: RopeConfig, head_dim: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._frequencies = frequencies(rope, head_dim, device)
        self._dtype = dtype
        self._cos = self._sin = torch.empty(0, device=device)

    def rows(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine of positions start..end-1, each [rows, 1, head_dim]."""
        if end > self._cos.shape[0]:
            self._grow(end)
        return self._cos[start:end], self._sin[start:end]

    def _grow(self, end: int) -> None:
        size = max(_FIRST_POSITIONS, 2 ** (end - 1).bit_length())
        positions = torch.arange(size, dtype=torch.float32, device=self._frequencies.device)
        angles = positions[:, None, None] * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        self._cos = torch.cat((cos, cos), -1).to(self._dtype)
        self._sin = torch.cat((-sin, sin), -1).to(self._dtype)
