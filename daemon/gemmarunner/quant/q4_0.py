"""Q4_0: blocks of 32 codes of 4 bits under one float16 scale; also what `--quantize int4` makes.

A block in a GGUF file, 18 bytes:  scale float16 | 16 bytes, byte i = code[i] | code[16 + i] << 4
A weight is scale * (code - 8).
"""

import torch
from torch import Tensor

from gemmarunner.quant.planes import Planes, blockwise, gather, half, spread, stepwise

BLOCK = 32
BLOCK_BYTES = 18
BITS = 4

# Where else than at -8 the greatest weight may fall, in codes from the middle.
_ENDS = (-8.6, -7.5, -7.1, 7.3)


def relaid(blocks: Tensor) -> Planes:
    """A file's blocks [N, K / 32, 18] uint8 as planes."""
    pairs = blocks[..., 2:]
    codes = spread(torch.cat([pairs & 15, pairs >> 4], dim=-1).flatten(1), BITS, BLOCK)
    return Planes(codes, stepwise(half(blocks[..., :2])[..., 0], 8))


def unpacked(planes: Planes, columns: int) -> Tensor:
    """The weights [N, columns] float32, bit for bit as GGML computes them."""
    codes = gather(planes.codes, BITS, BLOCK)[:, :columns]
    return (codes.float() - 8) * blockwise(planes.scale, BLOCK, columns)


def quantized(weight: Tensor, search: bool = True) -> Tensor:
    """`weight` [N, K] as a file's blocks [N, K / 32, 18] uint8.

    search: take the scale of the least squared error among several; else GGML's, which maps the
    greatest weight of a block to code 0.
    """
    values = torch.unflatten(weight.float(), 1, (-1, BLOCK))
    greatest = values.gather(-1, values.abs().argmax(-1, keepdim=True))
    if search:
        scale = _searched(values, greatest)
        codes = _codes(values, scale.half().float())
    else:
        scale = greatest / -8
        codes = _codes(values, scale)
    pairs = codes[..., :16] | codes[..., 16:] << 4
    return torch.cat([scale.half().view(torch.uint8), pairs], dim=-1)


def _codes(values: Tensor, scale: Tensor) -> Tensor:
    return _integers(values, scale).to(torch.uint8)


def _integers(values: Tensor, scale: Tensor) -> Tensor:
    """The codes, in float32."""
    inverse = torch.where(scale == 0, 0, 1 / scale)
    return (values * inverse).add_(8.5).trunc_().clamp_(0, 15)


def _searched(values: Tensor, greatest: Tensor) -> Tensor:
    """The best scale [.., 1] of a few starts, and of the best one's least-squares refinement."""
    best = greatest / -8
    least = _error(values, best)
    for end in _ENDS:
        best, least = _better(values, greatest / end, best, least)
    codes = _integers(values, best).sub_(8)
    squares = codes.square().sum(-1, keepdim=True)
    refined = torch.where(squares == 0, 0, (values * codes).sum(-1, keepdim=True) / squares)
    return _better(values, refined, best, least)[0]


def _better(values: Tensor, scale: Tensor, best: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    error = _error(values, scale)
    return torch.where(error < least, scale, best), torch.minimum(error, least)


def _error(values: Tensor, scale: Tensor) -> Tensor:
    scale = scale.half().float()
    codes = _integers(values, scale).sub_(8)
    return codes.mul_(scale).sub_(values).square_().sum(-1, keepdim=True)
