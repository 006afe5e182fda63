"""Q5_K: as Q4_K, with a fifth bit for each weight.

A block in a GGUF file, 176 bytes: the 16 first bytes of Q4_K | 32 bytes: bit b of byte i is the
fifth bit of code[32 b + i] | 128 bytes: the four lower bits, as in Q4_K
"""

from torch import Tensor

from gemmarunner.quant.planes import Planes, gather, spread
from gemmarunner.quant.q4_k import affine, nibbles, with_minima

BLOCK = 32
BLOCK_BYTES = 176
BITS = 4
HIGH_BITS = 1


def relaid(blocks: Tensor) -> Planes:
    """A file's blocks [N, K / 256, 176] uint8 as planes; the fifth bits already lie in fields."""
    codes = spread(nibbles(blocks[..., 48:]), BITS, BLOCK)
    return with_minima(blocks[..., :16], codes, blocks[..., 16:48].flatten(1).contiguous())


def unpacked(planes: Planes, columns: int) -> Tensor:
    """The weights [N, columns] float32, bit for bit as GGML computes them."""
    assert planes.high is not None
    codes = gather(planes.codes, BITS, BLOCK) | gather(planes.high, HIGH_BITS, BLOCK) << 4
    return affine(planes, codes[:, :columns])
