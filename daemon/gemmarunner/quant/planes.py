"""How packed matrices lie in memory: one plane for each part of a weight, fields across a step.

A step of a row's weights is cut into blocks of `block` neighbours. Word j of the step holds the
j-th code of every block, block i in the word's i-th field:

    step of 256 weights, 4 bits, blocks of 32 (32 words of 8 fields, 128 bytes):
        word j  =  code[j] | code[32 + j] << 4 | code[64 + j] << 8 | ...

So the same shift and mask takes a whole block out of all words, as the matrix that a tensor core
multiplies with the block's activations, in their own order. Scales lie apart as [steps, rows,
blocks of a step], so that a tile of rows reads neighbours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Planes(NamedTuple):
    """The parts of a packed matrix of N rows and K columns, K filled up with zeros to whole steps.

    codes: [N, words] int32, 4 or 8 bits a weight.
    high: [N, words] uint8 (1 bit a weight) or int16 (2 bits): bits above the codes' own, or None.
    scale: [steps, N, blocks of a step] float16, or integers that multiply `super_scale`.
    minimum: [steps, N, blocks of a step] uint8, multiplies `super_minimum`; or None.
    super_scale, super_minimum: [K / 256, N, 1] float16, or None.
    """

    codes: Tensor
    scale: Tensor
    high: Tensor | None = None
    minimum: Tensor | None = None
    super_scale: Tensor | None = None
    super_minimum: Tensor | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Planes":
        """The planes that `change` makes of these."""
        changed: list[Any] = [None if plane is None else change(plane) for plane in self]
        return Planes(*changed)


_WORDS = {1: (8, torch.uint8), 2: (8, torch.int16), 4: (8, torch.int32), 8: (4, torch.int32)}


def spread(codes: Tensor, bits: int, block: int) -> Tensor:
    """`codes` [N, K] uint8 of `bits` bits each as words [N, steps * block], laid out as above."""
    count, dtype = _WORDS[bits]
    steps = -(-codes.shape[1] // (count * block))
    codes = F.pad(codes, (0, steps * count * block - codes.shape[1]))
    fields = codes.view(codes.shape[0], steps, count, block)
    words = fields[:, :, 0].to(dtype)
    for i in range(1, count):
        words |= fields[:, :, i].to(dtype) << (bits * i)
    return words.reshape(codes.shape[0], steps * block)


def gather(words: Tensor, bits: int, block: int) -> Tensor:
    """The codes [N, K to whole steps] uint8 in `words`, in their own order: undoes `spread`."""
    count, _ = _WORDS[bits]
    words = words.view(words.shape[0], -1, 1, block)
    mask = (1 << bits) - 1
    fields = [((words >> (bits * i)) & mask).to(torch.uint8) for i in range(count)]
    return torch.cat(fields, dim=2).view(words.shape[0], -1)


def half(data: Tensor) -> Tensor:
    """Pairs of bytes [..., 2n] read as float16 [..., n]."""
    return data.contiguous().view(torch.float16)


def blockwise(scale: Tensor, block: int, columns: int) -> Tensor:
    """`scale` [steps, N, blocks of a step] as float32 [N, columns], each repeated for its block."""
    blocks = scale.transpose(0, 1).flatten(1).float()
    return blocks.repeat_interleave(block, dim=1)[:, :columns]


def stepwise(scale: Tensor, fields: int) -> Tensor:
    """`scale` [N, blocks] as [steps, N, fields], zeros filling up the last step."""
    steps = -(-scale.shape[1] // fields)
    scale = F.pad(scale, (0, steps * fields - scale.shape[1]))
    return scale.view(-1, steps, fields).transpose(0, 1).contiguous()
