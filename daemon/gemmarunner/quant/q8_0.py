"""Q8_0: blocks of 32 signed bytes under one float16 scale; also what `--quantize int8` makes.

A block in a GGUF file, 34 bytes:  scale float16 | 32 x int8
"""

import torch
from torch import Tensor

from gemmarunner.quant.planes import Planes, blockwise, gather, half, spread, stepwise

BLOCK = 32
BLOCK_BYTES = 34
BITS = 8


def relaid(blocks: Tensor) -> Planes:
    """A file's blocks [N, K / 32, 34] uint8 as planes."""
    codes = spread(blocks[..., 2:].flatten(1), BITS, BLOCK)
    return Planes(codes, stepwise(half(blocks[..., :2])[..., 0], 4))


def unpacked(planes: Planes, columns: int) -> Tensor:
    """The weights [N, columns] float32, bit for bit as GGML computes them."""
    codes = gather(planes.codes, BITS, BLOCK)[:, :columns].view(torch.int8)
    return codes.float() * blockwise(planes.scale, BLOCK, columns)


def quantized(weight: Tensor) -> Tensor:
    """`weight` [N, K] as a file's blocks [N, K / 32, 34] uint8, the greatest being 127."""
    values = torch.unflatten(weight.float(), 1, (-1, BLOCK))
    scale = values.abs().amax(-1, keepdim=True) / 127
    codes = _rounded(values * torch.where(scale == 0, 0, 1 / scale)).to(torch.int8)
    return torch.cat([scale.half().view(torch.uint8), codes.view(torch.uint8)], dim=-1)


def _rounded(values: Tensor) -> Tensor:
    """Halves go away from zero, as in GGML; torch.round would take them to even numbers."""
    whole = values.abs().floor()
    return (whole + (2 * (values.abs() - whole)).floor()) * values.sign()
