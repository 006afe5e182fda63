"""Integers under one scale a group of a row's weights, and the same matrix packed without loss.

A weight is `(code - zero point) * scale`. With groups of a multiple of 32 that is just what Q4_0
holds (4 bits, no zero points) and Q8_0 (all others whose differences fit a byte), a scale repeated
for each 32 weights. Scales there are float16, which holds every bf16 from 2^-17 to 65504: packing
is exact for the scales of real models, and where one would not survive it is not done.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemmarunner.quant.formats import Format, Packed
from gemmarunner.quant.planes import Planes, spread, stepwise

_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Grouped:
    """A matrix [N, K] of signed codes; `scale` and `zero` are for `K / groups` neighbours each."""

    codes: Tensor  # [N, K] int8
    scale: Tensor  # [N, groups] of any float type
    zero: Tensor | None  # [N, groups] int8
    bits: int  # 4 or 8

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weights [N, K] in `dtype`, rounded once."""
        values = torch.unflatten(self._differences(), 1, (self.scale.shape[1], -1))
        return (values * self.scale.float().unsqueeze(-1)).flatten(1).to(dtype)

    def packed(self) -> Packed | str:
        """The same weights, packed; or why no format holds them."""
        (rows, columns), groups = self.codes.shape, self.scale.shape[1]
        if columns % groups or columns // groups % _BLOCK:
            return "their groups are no multiples of 32 weights"
        if self.zero is not None and self.bits == 8:
            return "8 bits with zero points fit no packed format"
        half = self.scale.half()
        if not torch.equal(half.float(), self.scale.float()):
            return "float16 does not hold their scales"
        scale = half.repeat_interleave(columns // groups // _BLOCK, dim=1)
        if self.bits == 4 and self.zero is None:
            planes = Planes(
                spread((self.codes + 8).view(torch.uint8), 4, _BLOCK), stepwise(scale, 8)
            )
            return Packed(Format.Q4_0, (rows, columns), planes)
        codes = self._differences().to(torch.int8).view(torch.uint8)
        return Packed(
            Format.Q8_0, (rows, columns), Planes(spread(codes, 8, _BLOCK), stepwise(scale, 4))
        )

    def _differences(self) -> Tensor:
        """Codes less zero points, [N, K] float32."""
        codes = self.codes.float()
        if self.zero is None:
            return codes
        apart = torch.unflatten(codes, 1, (self.zero.shape[1], -1))
        return (apart - self.zero.unsqueeze(-1)).flatten(1)


def unpack_words(words: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes [N, count] int8 of each row of `words` [N, W] int32.

    Fields of 4 or 8 bits, the lowest first, hold code + 2^(bits-1).
    """
    fields = words.contiguous().view(torch.uint8)  # little-endian, like every machine that runs us
    if bits == 4:
        fields = torch.stack((fields & 15, fields >> 4), dim=-1).flatten(1)
    return (fields[:, :count] - (1 << (bits - 1))).view(torch.int8)
