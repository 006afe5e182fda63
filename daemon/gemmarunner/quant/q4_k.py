"""Q4_K: 256 weights of 4 bits; each 32 have a scale and a minimum of 6 bits under float16 ones.

A block in a GGUF file, 144 bytes:
    scale float16 | minimum float16 | 12 bytes: 8 scales and 8 minima | 128 bytes: codes,
    byte 32 c + i = code[64 c + i] | code[64 c + 32 + i] << 4
A weight is scale * scales[b] * code - minimum * minima[b].
"""

import torch
from torch import Tensor

from gemmarunner.quant.planes import Planes, blockwise, gather, half, spread, stepwise

BLOCK = 32
BLOCK_BYTES = 144
BITS = 4
SUPER = 256


def relaid(blocks: Tensor) -> Planes:
    """A file's blocks [N, K / 256, 144] uint8 as planes."""
    return with_minima(blocks[..., :16], spread(nibbles(blocks[..., 16:]), BITS, BLOCK), None)


def unpacked(planes: Planes, columns: int) -> Tensor:
    """The weights [N, columns] float32, bit for bit as GGML computes them."""
    return affine(planes, gather(planes.codes, BITS, BLOCK)[:, :columns])


def nibbles(data: Tensor) -> Tensor:
    """Bytes [N, K / 256, 128] as codes [N, K]: 32 bytes hold 32 low ones, then 32 high ones."""
    data = torch.unflatten(data, -1, (4, 1, 32))
    return torch.cat([data & 15, data >> 4], dim=-2).flatten(1)


def with_minima(head: Tensor, codes: Tensor, high: Tensor | None) -> Planes:
    """Planes of a block's first 16 bytes [N, K / 256, 16] and its codes: Q4_K and Q5_K alike."""
    first, second, mixed = torch.split(head[..., 4:], 4, dim=-1)
    scales = torch.cat([first & 63, (mixed & 15) | ((first >> 2) & 48)], dim=-1)
    minima = torch.cat([second & 63, (mixed >> 4) | ((second >> 2) & 48)], dim=-1)
    supers = half(head[..., :4])
    return Planes(
        codes,
        stepwise(scales.flatten(1), 8),
        high,
        stepwise(minima.flatten(1), 8),
        stepwise(supers[..., 0], 1),
        stepwise(supers[..., 1], 1),
    )


def affine(planes: Planes, codes: Tensor) -> Tensor:
    """scale * code - minimum, in float32 and in GGML's order."""
    columns = codes.shape[1]
    assert planes.minimum is not None
    assert planes.super_scale is not None
    assert planes.super_minimum is not None
    scale = blockwise(planes.super_scale, SUPER, columns) * blockwise(planes.scale, BLOCK, columns)
    least = blockwise(planes.super_minimum, SUPER, columns)
    return scale * codes.float() - least * blockwise(planes.minimum, BLOCK, columns)
