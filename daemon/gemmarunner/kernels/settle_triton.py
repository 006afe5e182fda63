"""Triton kernel of `settle`: one program a sequence."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.accept import Accepted
from gemmarunner.kernels.launch import launch
from gemmarunner.kernels.settle import Places

_COLUMNS = 16  # at least, so that all usual depths share one kernel


def launch_settle(accepted: Accepted, overflow: Tensor, places: Places) -> Tensor:
    """See `settle.settle`."""
    batch, per = accepted.new.shape
    packed = torch.empty(batch, per + 2, dtype=torch.int64, device=overflow.device)
    launch(
        _settle,
        (batch,),
        *(accepted.new, accepted.count, accepted.seed, overflow),
        *(*places, packed, per),
        RECENT=places.recent.shape[1],
        COLUMNS=max(_COLUMNS, triton.next_power_of_2(per)),
        num_warps=1,
    )
    return packed


@triton.jit(do_not_specialize=["per"])  # type: ignore[untyped-decorator]
def _settle(  # type: ignore[no-untyped-def]
    new,
    count,
    last,
    overflow,
    seed,
    start,
    position,
    recent,
    packed,
    per,
    RECENT: tl.constexpr,
    COLUMNS: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sequence = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    kept = tl.load(count + sequence)
    row = packed + sequence * (per + 2)
    text = tl.load(new + sequence * per + column, mask=column < per)
    tl.store(row + 2 + column, text, mask=column < per)
    place = tl.load(position + sequence)
    ring = recent + sequence * RECENT + (place + column) % RECENT
    tl.store(ring, text.to(tl.int32), mask=column < kept)
    tl.store(row, kept.to(tl.int64))
    tl.store(row + 1, tl.load(overflow + sequence).to(tl.int64))
    tl.store(seed + sequence, tl.load(last + sequence))
    tl.store(start + sequence, tl.load(start + sequence) + kept)
    tl.store(position + sequence, place + kept)
