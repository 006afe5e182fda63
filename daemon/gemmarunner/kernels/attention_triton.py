"""Triton kernels of decode attention: pieces of keys, then their combination.

A piece's product runs in tensor cores over tiles of 16 or 32 rows. On compute capability 8 and
above that is the same m16n8k16 instruction for either tile, with the sums over keys taken by the
instruction too, so a row's partial result does not depend on its tile.
"""

# Triton reads the arguments by its own rules; capitals are its custom for constants.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LOG2_E = tl.constexpr(1.4426950408889634)
# The highest score of a row that has seen no key yet; finite, as infinities would subtract to NaN.
FLOOR = tl.constexpr(-1e30)
# Without a window, pieces grow along the text: 32 of `chunk` keys, 56 of 4, then all of 8 chunks.
SMALL = tl.constexpr(32)
MEDIUM = tl.constexpr(56)


@triton.jit
def piece_of(position, CHUNK: tl.constexpr, EVEN: tl.constexpr):
    """The piece that a position >= 0 lies in."""
    short = position // CHUNK
    if EVEN:
        piece = short
    else:
        medium = SMALL + (short - SMALL) // 4
        long = SMALL + MEDIUM + (short - SMALL - 4 * MEDIUM) // 8
        piece = tl.where(short < SMALL, short, tl.where(medium < SMALL + MEDIUM, medium, long))
    return piece


@triton.jit
def piece_start(piece, CHUNK: tl.constexpr, EVEN: tl.constexpr):
    """The first position of a piece."""
    if EVEN:
        short = piece
    else:
        medium = SMALL + (piece - SMALL) * 4
        long = SMALL + 4 * MEDIUM + (piece - SMALL - MEDIUM) * 8
        short = tl.where(piece < SMALL, piece, tl.where(piece < SMALL + MEDIUM, medium, long))
    return short * CHUNK


@triton.jit(do_not_specialize=["per", "lag", "most", "tiles", "workers"])
def pieces_kernel(
    q,
    cache,
    slots,
    starts,
    partial,
    peaks,
    sums,
    per,
    lag,
    ring,
    most,
    tiles,
    workers,
    cache_slot,
    cache_side,
    cache_head,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """Every `workers`-th piece of one sequence and K/V head, for one tile of its query rows.

    Writes unnormalised outputs `partial` [R, Hq, most, D], and each row's highest score (base 2)
    `peaks` and sum of weights `sums` [R, Hq, most]; pieces count from the sequence's first one.
    """
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    tile = tl.program_id(0) % tiles
    worker = tl.program_id(0) // tiles
    kv_head = tl.program_id(1)
    sequence = tl.program_id(2)
    heads = tl.num_programs(1) * GROUP
    EVEN: tl.constexpr = WINDOW > 0

    start = tl.load(starts + sequence)
    newest = start + per - 1 - lag
    oldest = 0
    if WINDOW > 0:
        oldest = tl.maximum(start - lag - WINDOW + 1, 0)
    first = piece_of(oldest, CHUNK, EVEN)
    last = piece_of(tl.maximum(newest, 0), CHUNK, EVEN)

    if first + worker <= last:
        m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
        step = m // GROUP
        real = step < per
        row = ((sequence * per + step) * heads + kv_head * GROUP + m % GROUP).to(tl.int64)
        reach = start + step - lag  # the newest key that a row sees
        d = tl.arange(0, D)
        queries = tl.load(q + row[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
        keys = cache + tl.load(slots + sequence).to(tl.int64) * cache_slot
        keys += kv_head.to(tl.int64) * cache_head
        ones = tl.full((BLOCK_N, 16), 1.0, tl.float32).to(cache.dtype.element_ty)
        # The last pieces are the longest: they come first.
        for ahead in range(worker, last - first + 1, workers):
            piece = last - ahead
            begin = piece_start(piece, CHUNK, EVEN)
            end = tl.minimum(piece_start(piece + 1, CHUNK, EVEN), newest + 1)
            peak = tl.full((BLOCK_M,), FLOOR, tl.float32)
            total = tl.zeros((BLOCK_M, 16), tl.float32)
            out = tl.zeros((BLOCK_M, D), tl.float32)
            for block in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
                j = block + tl.arange(0, BLOCK_N)
                live = (j >= oldest) & (j <= newest)
                at = j
                if WINDOW > 0:
                    at = block % ring + tl.arange(0, BLOCK_N)
                    at = tl.where(at >= ring, at - ring, at)
                at = keys + at[:, None] * D + d[None, :]
                k = tl.load(at, mask=live[:, None], other=0.0)
                v = tl.load(at + cache_side, mask=live[:, None], other=0.0)
                scores = tl.dot(queries, k.T, input_precision="ieee") * LOG2_E
                seen = j[None, :] <= reach[:, None]
                if WINDOW > 0:
                    seen = seen & (j[None, :] > reach[:, None] - WINDOW)
                scores = tl.where(seen, scores, float("-inf"))
                higher = tl.maximum(peak, tl.max(scores, 1))
                weights = tl.exp2(scores - higher[:, None]).to(v.dtype)
                shrink = tl.exp2(peak - higher)
                total = tl.dot(weights, ones, total * shrink[:, None], input_precision="ieee")
                out = tl.dot(weights, v, out * shrink[:, None], input_precision="ieee")
                peak = higher
            to = row * most + (piece - first)
            tl.store(peaks + to, peak, mask=real)
            tl.store(sums + to, tl.max(total, 1), mask=real)
            tl.store(partial + to[:, None] * D + d[None, :], out, mask=real[:, None])


@triton.jit(do_not_specialize=["per", "lag", "most", "heads"])
def combine_kernel(
    partial,
    peaks,
    sums,
    starts,
    out,
    per,
    lag,
    most,
    heads,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
):
    """BLOCK_D outputs of one head of one row, from its pieces in ascending order.

    Pieces are taken TILE at a time from multiples of TILE on, so that the order of sums is fixed by
    the text's positions; a piece that the row does not see adds an exact zero.
    """
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0)
    row = tl.program_id(2)
    EVEN: tl.constexpr = WINDOW > 0
    start = tl.load(starts + row // per)
    reach = start + row % per - lag
    base = 0  # the sequence's first piece
    first = 0
    if WINDOW > 0:
        base = piece_of(tl.maximum(start - lag - WINDOW + 1, 0), CHUNK, EVEN)
        first = piece_of(tl.maximum(reach - WINDOW + 1, 0), CHUNK, EVEN)
    last = piece_of(tl.maximum(reach, 0), CHUNK, EVEN)

    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    from_row = (row * heads + head).to(tl.int64) * most
    peak = FLOOR
    total = 0.0
    result = tl.zeros((BLOCK_D,), tl.float32)
    for block in range(first // TILE * TILE, last + 1, TILE):
        piece = block + tl.arange(0, TILE)
        live = (piece >= first) & (piece <= last)
        at = from_row + piece - base
        tops = tl.load(peaks + at, mask=live, other=FLOOR)
        counts = tl.load(sums + at, mask=live, other=0.0)
        pieces = tl.load(partial + at[:, None] * D + d[None, :], mask=live[:, None], other=0.0)
        higher = tl.maximum(peak, tl.max(tops))
        shares = tl.exp2(tops - higher)
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(shares * counts)
        result = result * shrink + tl.sum(shares[:, None] * pieces, 0)
        peak = higher
    result = result / tl.where(total == 0.0, 1.0, total)
    to = out + (row * heads + head).to(tl.int64) * D + d
    tl.store(to, result.to(out.dtype.element_ty))
