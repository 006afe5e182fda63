"""Tries every kind of native kernel on this processor, before anything depends on it.

One build has kernels for several kinds of processors, and not all of them are at hand where they
are written. A kind that computes something else than its twin switches all off: torch's operators
run instead.
"""

import logging
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from gemmarunner.native.library import library, switch_off
from gemmarunner.native.linear import Native
from gemmarunner.quant.formats import Format, Packed, from_gguf, quantize

_log = logging.getLogger(__name__)
_ROWS, _COLUMNS = 40, 512
_WIDTHS = (1, 5, 9)  # rows of activations; kernels differ for few and for more
_ROUNDED = 2e-2  # of a product's length, where activations are rounded to bytes
_EXACT = 1e-5
# Where a block of 256 weights has its float16 scales, and its bytes; see ggml-common.h.
_BLOCKS = {Format.Q4_K: ((0, 2), 144), Format.Q5_K: ((0, 2), 176), Format.Q6_K: ((208,), 210)}


@cache
def try_kernels() -> None:
    """Native kernels are right on this processor afterwards, or off, and the log says why."""
    if library() is None:
        return
    wrong = [name for name, weight in _samples() if not _is_right(weight)]
    if wrong:
        why = f"kernels of {', '.join(wrong)} compute wrongly on this processor"
        _log.error("%s; please report it. Torch's operators run instead.", why)
        switch_off(why)


def _samples() -> Iterator[tuple[str, Tensor | Packed]]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(_ROWS, _COLUMNS, generator=generator)
    yield "bf16", weight.bfloat16()
    yield "float16", weight.half()
    yield "float32", weight
    for form in (Format.Q8_0, Format.Q4_0):
        yield form.name, quantize(weight, form, search=False)
    for form, (scales, nbytes) in _BLOCKS.items():
        shape = (_ROWS, _COLUMNS // 256, nbytes)
        blocks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for at in scales:
            blocks[..., at : at + 2] = torch.tensor([0.01]).half().view(torch.uint8)
        yield form.name, from_gguf(form, blocks.flatten(1), (_ROWS, _COLUMNS))


def _is_right(weight: Tensor | Packed) -> bool:
    """Close to its twin, and each row the same among few and among more."""
    if isinstance(weight, Packed):
        dense, most = weight.dequantized(torch.float32), _ROUNDED
    else:
        dense, most = weight.float(), _EXACT
    rows = torch.randn(max(_WIDTHS), _COLUMNS, generator=torch.Generator().manual_seed(2))
    multiply, expected = Native(weight), rows @ dense.T
    found = [multiply(rows[:count]) for count in _WIDTHS]
    error = (found[-1] - expected).norm() / expected.norm()
    same = all(torch.equal(part, found[-1][: len(part)]) for part in found)
    return same and bool(error <= most)
