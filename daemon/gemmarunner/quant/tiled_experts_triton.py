"""Triton kernel: rows times the experts that they chose, of a stack that `quant.tiled` laid out.

A program has a tile of one expert and all rows that chose it, 8 at a time: they are the columns of
one `mma`, whose sums have one order whatever rows share it. See `tiled_triton` for the rest.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.experts_triton import expert_of, pairs_of
from gemmarunner.quant.linear_triton import gelu
from gemmarunner.quant.tiled_triton import met_alone, summed, turn_words


@triton.jit(do_not_specialize=["pairs"])
def routed(
    x,  # of gate and up [R, K]; of down [pairs, K]
    codes,  # [experts, tiles, steps, PIECES, 32, 4] int32
    scale,  # [experts, tiles, steps, 8, 4] int32, pairs of float16
    chosen,  # [pairs] int32, a row's TOP_K beside each other
    shares,  # [pairs] f32
    out,  # of gate and up [pairs, N]; of down [TOP_K, R, N] f32
    pairs,
    K,
    N,
    tiles,
    steps,
    DOWN: tl.constexpr,
    FORMAT: tl.constexpr,
    PIECES: tl.constexpr,
    TAIL: tl.constexpr,
    SIDE: tl.constexpr,
    DEEP: tl.constexpr,
    AHEAD: tl.constexpr,
    TOP_K: tl.constexpr,
    PAIRS: tl.constexpr,
    BY_PAIR: tl.constexpr,
    PDL: tl.constexpr,
):
    """gelu(gate) * up of each pair, or its share of down."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    expert, total = expert_of(chosen, pairs, PAIRS, BY_PAIR)
    thread = tl.arange(0, 32 * SIDE * DEEP)
    lane = thread % 32
    tile = tl.program_id(0) * SIDE + thread // (32 * DEEP)
    mine = thread // 32 % DEEP
    place = (expert.to(tl.int64) * tiles + tl.minimum(tile, tiles - 1)) * steps
    codes += place * (PIECES * 128) + lane * 4
    scale += place * 32 + lane // 4 * 4
    exists = tile < tiles
    for start in range(0, total, 8):
        eight = pairs_of(chosen, pairs, expert, start, PAIRS, 8)
        pair = tl.broadcast_to(eight[None, :, None], (SIDE * DEEP, 8, 4))
        pair = pair.reshape(32 * SIDE * DEEP)  # of lane 4 g + q the g-th
        row = tl.maximum(pair, 0)
        if not DOWN:
            row = row // TOP_K
        words = turn_words(codes, scale, mine, steps, steps, exists, exists, PIECES, 1, DEEP, AHEAD)
        sums = summed(
            words, codes, scale, x + row.to(tl.int64) * K + lane % 4 * 8, (pair < 0).to(tl.int32),
            1, K, mine, steps, steps, steps, exists, exists,
            FORMAT, PIECES, TAIL, 1, 1, DEEP, AHEAD,
        )  # fmt: skip
        _store(sums, eight, shares, out, pairs, N, DOWN, SIDE, DEEP, TOP_K)


@triton.jit
def _store(sums, eight, shares, out, pairs, N, DOWN: tl.constexpr, SIDE: tl.constexpr,
           DEEP: tl.constexpr, TOP_K: tl.constexpr):  # fmt: skip
    """The sums of all warps of a tile, each to its pair's place."""
    lane = tl.arange(0, 32)[None, :]
    tile = tl.program_id(0) * SIDE + tl.arange(0, SIDE)[:, None]
    columns = eight.reshape(4, 2).split()  # a lane's: 2 q and one more
    for i in tl.static_range(2):
        pair = tl.broadcast_to(columns[i][None, None, :], (SIDE, 8, 4)).reshape(SIDE, 32)
        upper = met_alone(sums[i].reshape(SIDE, DEEP, 32), DEEP)
        lower = met_alone(sums[2 + i].reshape(SIDE, DEEP, 32), DEEP)
        if DOWN:
            share = tl.load(shares + tl.maximum(pair, 0))
            to = (pair % TOP_K * (pairs // TOP_K) + pair // TOP_K).to(tl.int64) * N
            n = tile * 16 + lane // 4
            tl.store(out + to + n, upper * share, mask=(pair >= 0) & (n < N))
            tl.store(out + to + n + 8, lower * share, mask=(pair >= 0) & (n + 8 < N))
        else:
            n = tile * 8 + lane // 4
            value = (gelu(upper) * lower).to(out.dtype.element_ty)
            tl.store(out + pair.to(tl.int64) * N + n, value, mask=(pair >= 0) & (n < N))
