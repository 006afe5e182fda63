"""Triton kernels of `experts`: 16 rows of one expert at a time, so its weights are read once.

Every product is a tensor-core tile of 16 rows, however few of them are used, and runs over the
weight's columns in the same steps: what a row gets does not depend on the rows beside it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.launch import launch
from gemmarunner.kernels.ordered_triton import packed, unpacked_index

_ROWS = 16  # of a tile
_SCORED = 4  # experts a program of the router
_UP_TILE = 32  # hidden units a program of gate_up
_DOWN_TILE = 64  # outputs a program of down


def launch_route(
    x: Tensor, weight: Tensor, expert_scale: Tensor, top_k: int
) -> tuple[Tensor, Tensor]:
    """See `experts.route`; two launches."""
    rows, width = x.shape
    count = weight.shape[0]
    scores = torch.empty(rows, count, dtype=torch.float32, device=x.device)
    launch(
        _scores,
        (triton.cdiv(count, _SCORED), rows),
        *(x, weight, scores, count),
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        TILE=_SCORED,
        num_warps=4,
    )
    shares = torch.empty(rows, top_k, dtype=torch.float32, device=x.device)
    chosen = torch.empty(rows, top_k, dtype=torch.int32, device=x.device)
    launch(
        _best,
        (rows,),
        *(scores, expert_scale, shares, chosen, count, top_k),
        COUNT=triton.next_power_of_2(count),
        BEST=triton.next_power_of_2(top_k),
        num_warps=1,
    )
    return shares, chosen


def launch_experts(
    x: Tensor, gate_up: Tensor, down: Tensor, shares: Tensor, chosen: Tensor
) -> Tensor:
    """See `experts.experts`; two launches, one partial sum for each rank."""
    rows, width = x.shape
    count, _, units = down.shape
    top_k = chosen.shape[1]
    pairs = rows * top_k
    hidden = torch.empty(pairs, units, dtype=x.dtype, device=x.device)
    out = torch.empty(top_k, rows, width, dtype=torch.float32, device=x.device)
    by_pair = rows <= _ROWS  # then no expert has more than one tile, and a pair can name it
    tiles = pairs if by_pair else count
    meta = {
        "TOP_K": top_k,
        "PAIRS": max(16, triton.next_power_of_2(pairs)),
        "BY_PAIR": by_pair,
        "ROWS": _ROWS,
        "num_warps": 4,
    }
    launch(
        _gate_up,
        (triton.cdiv(units, _UP_TILE), tiles),
        *(x, gate_up, chosen, hidden, pairs),
        WIDTH=width,
        UNITS=units,
        TILE=_UP_TILE,
        STEP=128,
        STAGES=4,
        **meta,
    )
    launch(
        _down,
        (triton.cdiv(width, _DOWN_TILE), tiles),
        *(hidden, down, chosen, shares, out, pairs),
        WIDTH=width,
        UNITS=units,
        TILE=_DOWN_TILE,
        STEP=64,
        STAGES=5,
        **meta,
    )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _scores(  # type: ignore[no-untyped-def]
    x,
    weight,
    scores,
    count,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    lane = tl.arange(0, BLOCK)
    expert = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = (expert < count)[:, None] & (lane < WIDTH)[None, :]
    weights = tl.load(weight + expert[:, None] * WIDTH + lane[None, :], mask=inside, other=0.0)
    if PDL:
        gdc_wait()
    row = tl.program_id(1)
    values = tl.load(x + row * WIDTH + lane, mask=lane < WIDTH, other=0.0).to(tl.float32)
    total = tl.sum(weights.to(tl.float32) * values[None, :], 1)
    tl.store(scores + row * count + expert, total, mask=expert < count)


@triton.jit  # type: ignore[untyped-decorator]
def _best(  # type: ignore[no-untyped-def]
    scores,
    expert_scale,
    shares,
    chosen,
    count,
    top_k,
    COUNT: tl.constexpr,
    BEST: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0)
    expert = tl.arange(0, COUNT)
    score = tl.load(scores + row * count + expert, mask=expert < count, other=-float("inf"))
    share = tl.exp(score - tl.max(score, 0))
    share = share / tl.sum(share, 0)
    share = tl.where(expert < count, share, -1.0)
    best = tl.topk(packed(share, expert), BEST)
    rank = tl.arange(0, BEST)
    index = unpacked_index(best)
    kept = rank < top_k
    picked = tl.where(kept, tl.gather(share, index, 0), 0.0)
    scale = tl.load(expert_scale + index, mask=kept, other=0.0).to(tl.float32)
    out = row * top_k + rank
    tl.store(shares + out, picked / tl.sum(picked, 0) * scale, mask=kept)
    tl.store(chosen + out, index, mask=kept)


@triton.jit  # type: ignore[untyped-decorator]
def expert_of(chosen, pairs, PAIRS: tl.constexpr, BY_PAIR: tl.constexpr):  # type: ignore[no-untyped-def]
    """This program's expert, and how many pairs name it.

    A program that stands for a pair has none to do when an earlier pair names the same expert.
    """
    at = tl.arange(0, PAIRS)
    every = tl.load(chosen + at, mask=at < pairs, other=-1)
    me = tl.program_id(1)
    expert = me
    if BY_PAIR:
        expert = tl.load(chosen + me)
    hit = every == expert
    total = tl.sum(hit.to(tl.int32), 0)
    if BY_PAIR:
        first = tl.min(tl.where(hit, at, PAIRS), 0)
        total = tl.where(first == me, total, 0)
    return expert, total


@triton.jit  # type: ignore[untyped-decorator]
def pairs_of(  # type: ignore[no-untyped-def]
    chosen, pairs, expert, start, PAIRS: tl.constexpr, ROWS: tl.constexpr
):
    """The pairs [ROWS] that name the expert, from its `start`-th on; -1 where there are no more."""
    BLOCK: tl.constexpr = min(PAIRS, 128)  # all at once would take more registers than there are
    wanted = start + tl.arange(0, ROWS)
    found = tl.full([ROWS], -1, tl.int32)
    before = 0
    for first in range(0, PAIRS, BLOCK):
        at = first + tl.arange(0, BLOCK)
        hit = tl.load(chosen + at, mask=at < pairs, other=-1) == expert
        number = tl.where(hit, before + tl.cumsum(hit.to(tl.int32), 0) - 1, -1)
        same = number[None, :] == wanted[:, None]
        found = tl.maximum(found, tl.max(tl.where(same, at[None, :], -1), 1))
        before += tl.sum(hit.to(tl.int32), 0)
    return found


@triton.jit(do_not_specialize=["pairs"])  # type: ignore[untyped-decorator]
def _gate_up(  # type: ignore[no-untyped-def]
    x,
    weight,
    chosen,
    hidden,
    pairs,
    WIDTH: tl.constexpr,
    UNITS: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    STAGES: tl.constexpr,
    TOP_K: tl.constexpr,
    PAIRS: tl.constexpr,
    BY_PAIR: tl.constexpr,
    ROWS: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    expert, total = expert_of(chosen, pairs, PAIRS, BY_PAIR)
    EVEN: tl.constexpr = WIDTH % STEP == 0
    both = tl.arange(0, 2 * TILE)  # gate rows, then up rows
    unit = tl.program_id(0) * TILE + both % TILE
    rows = expert.to(tl.int64) * (2 * UNITS) + (both // TILE) * UNITS + tl.minimum(unit, UNITS - 1)
    lane = tl.arange(0, STEP)
    for start in range(0, total, ROWS):
        pair = pairs_of(chosen, pairs, expert, start, PAIRS, ROWS)
        row = tl.maximum(pair, 0) // TOP_K
        acc = tl.zeros([ROWS, 2 * TILE], tl.float32)
        for k in tl.range(0, WIDTH, STEP, num_stages=STAGES):
            column = k + lane
            if EVEN:
                a = tl.load(x + row[:, None] * WIDTH + column[None, :])
                b = tl.load(weight + rows[None, :] * WIDTH + column[:, None])
            else:
                inside = column < WIDTH
                a = tl.load(
                    x + row[:, None] * WIDTH + column[None, :], mask=inside[None, :], other=0.0
                )
                b = tl.load(
                    weight + rows[None, :] * WIDTH + column[:, None],
                    mask=inside[:, None],
                    other=0.0,
                )
            acc = tl.dot(a, b, acc, input_precision="ieee")
        gate, up = tl.split(tl.permute(tl.reshape(acc, [ROWS, 2, TILE]), [0, 2, 1]))
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        tanh = 1 - 2 / (tl.exp(2 * inner) + 1)
        out = (0.5 * gate * (1 + tanh) * up).to(hidden.dtype.element_ty)
        at = tl.program_id(0) * TILE + tl.arange(0, TILE)
        inside_out = (pair >= 0)[:, None] & (at < UNITS)[None, :]
        tl.store(hidden + pair[:, None] * UNITS + at[None, :], out, mask=inside_out)


@triton.jit(do_not_specialize=["pairs"])  # type: ignore[untyped-decorator]
def _down(  # type: ignore[no-untyped-def]
    hidden,
    weight,
    chosen,
    shares,
    out,
    pairs,
    WIDTH: tl.constexpr,
    UNITS: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    STAGES: tl.constexpr,
    TOP_K: tl.constexpr,
    PAIRS: tl.constexpr,
    BY_PAIR: tl.constexpr,
    ROWS: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    expert, total = expert_of(chosen, pairs, PAIRS, BY_PAIR)
    EVEN: tl.constexpr = UNITS % STEP == 0
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    rows = expert.to(tl.int64) * WIDTH + tl.minimum(at, WIDTH - 1)
    lane = tl.arange(0, STEP)
    for start in range(0, total, ROWS):
        pair = pairs_of(chosen, pairs, expert, start, PAIRS, ROWS)
        used = tl.maximum(pair, 0)
        acc = tl.zeros([ROWS, TILE], tl.float32)
        for k in tl.range(0, UNITS, STEP, num_stages=STAGES):
            column = k + lane
            if EVEN:
                a = tl.load(hidden + used[:, None] * UNITS + column[None, :])
                b = tl.load(weight + rows[None, :] * UNITS + column[:, None])
            else:
                inside = column < UNITS
                a = tl.load(
                    hidden + used[:, None] * UNITS + column[None, :],
                    mask=inside[None, :],
                    other=0.0,
                )
                b = tl.load(
                    weight + rows[None, :] * UNITS + column[:, None],
                    mask=inside[:, None],
                    other=0.0,
                )
            acc = tl.dot(a, b, acc, input_precision="ieee")
        acc *= tl.load(shares + used)[:, None]
        to = (pair % TOP_K) * (pairs // TOP_K) + pair // TOP_K
        inside_out = (pair >= 0)[:, None] & (at < WIDTH)[None, :]
        tl.store(out + to[:, None] * WIDTH + at[None, :], acc, mask=inside_out)
