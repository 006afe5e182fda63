"""Triton kernel of `penalise`: one program a row counts the tokens of its window."""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.launch import launch
from gemmarunner.kernels.penalise import RECENT, Bending

_STEP = 32  # tokens compared with all others at once


def launch_penalise(logits: Tensor, drafts: Tensor, how: Bending) -> None:
    """See `penalise.penalise`."""
    rows, vocab = logits.shape
    launch(
        _penalise,
        (rows,),
        *(logits, drafts, *how, vocab, drafts.shape[1], rows // drafts.shape[0]),
        RECENT=RECENT,
        STEP=_STEP,
        num_warps=4,
        enable_fp_fusion=False,  # each step rounds as it does in the twin
    )


@triton.jit  # type: ignore[untyped-decorator]
def _token(index, recent, drafts, position, window, row, RECENT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The tokens at `index` of the text, -1 where the row does not look."""
    last = position + row  # the row's own token
    seen = (index >= 0) & (index < last) & (index >= last - window)
    old = tl.load(recent + index % RECENT, mask=seen & (index < position), other=-1)
    new = tl.load(drafts + (index - position), mask=seen & (index >= position), other=-1)
    return tl.maximum(old, new.to(tl.int32))


@triton.jit(do_not_specialize=["drafted", "per"])  # type: ignore[untyped-decorator]
def _penalise(  # type: ignore[no-untyped-def]
    logits,
    drafts,
    window,
    repeat,
    presence,
    frequency,
    recent,
    position,
    vocab,
    drafted,
    per,
    RECENT: tl.constexpr,
    STEP: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sequence, row = tl.program_id(0) // per, tl.program_id(0) % per
    size = tl.load(window + sequence)
    if size > 0:
        place = tl.load(position + sequence)
        own, guesses = recent + sequence * RECENT, drafts + sequence * drafted
        index = place + row - 1 - tl.arange(0, RECENT)  # the nearest first
        token = _token(index, own, guesses, place, size, row, RECENT)
        count = tl.zeros([RECENT], tl.int32)
        earlier = tl.zeros([RECENT], tl.int32)  # the same token nearer to the row
        for begin in range(0, RECENT, STEP):
            other = place + row - 1 - begin - tl.arange(0, STEP)
            same = token[:, None] == _token(other, own, guesses, place, size, row, RECENT)[None, :]
            count += tl.sum(same.to(tl.int32), 1)
            earlier += tl.sum((same & (other[None, :] > index[:, None])).to(tl.int32), 1)
        once = (token >= 0) & (earlier == 0)
        at = logits + tl.program_id(0).to(tl.int64) * vocab + token
        x = tl.load(at, mask=once, other=0.0)
        factor = tl.load(repeat + sequence)
        bent = tl.where(x < 0, x * factor, tl.math.div_rn(x, factor))
        x = tl.where(factor == 1.0, x, bent)
        less = count * tl.load(frequency + sequence) + tl.load(presence + sequence)
        tl.store(at, x - less, mask=once)
