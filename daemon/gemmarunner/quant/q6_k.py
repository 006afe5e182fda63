"""Q6_K: 256 weights of 6 bits; each 16 have a signed scale of 8 bits under a float16 one.

A block in a GGUF file, 210 bytes:
    128 bytes: lower 4 bits, byte 64 c + i = code[128 c + i] | code[128 c + 64 + i] << 4
    64 bytes: upper 2 bits, byte 32 c + i = of code[128 c + i + 32 f] in its bits 2 f, 2 f + 1
    16 x int8 scales | scale float16
A weight is scale * scales[b] * (code - 32).
"""

import torch
from torch import Tensor

from gemmarunner.quant.planes import Planes, blockwise, gather, half, spread, stepwise

BLOCK = 16
BLOCK_BYTES = 210
BITS = 4
HIGH_BITS = 2
SUPER = 256


def relaid(blocks: Tensor) -> Planes:
    """A file's blocks [N, K / 256, 210] uint8 as planes."""
    low = torch.unflatten(blocks[..., :128], -1, (2, 1, 64))
    low = torch.cat([low & 15, low >> 4], dim=-2).flatten(1)
    high = torch.unflatten(blocks[..., 128:192], -1, (2, 1, 32))
    high = torch.cat([(high >> 2 * f) & 3 for f in range(4)], dim=-2).flatten(1)
    return Planes(
        spread(low, BITS, BLOCK),
        stepwise(blocks[..., 192:208].flatten(1).view(torch.int8), 8),
        spread(high, HIGH_BITS, BLOCK),
        super_scale=stepwise(half(blocks[..., 208:])[..., 0], 1),
    )


def unpacked(planes: Planes, columns: int) -> Tensor:
    """The weights [N, columns] float32, bit for bit as GGML computes them."""
    assert planes.high is not None
    assert planes.super_scale is not None
    codes = gather(planes.codes, BITS, BLOCK) | gather(planes.high, HIGH_BITS, BLOCK) << 4
    scale = blockwise(planes.super_scale, SUPER, columns) * blockwise(planes.scale, BLOCK, columns)
    return scale * (codes[:, :columns].float() - 32)
