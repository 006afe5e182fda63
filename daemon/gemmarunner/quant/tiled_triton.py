"""Triton kernel: few rows times a matrix kept as the tensor core's own fragments.

Each thread reads whole 16-byte pieces of what it alone multiplies (`quant.tiled` lays them out), so
that no weight passes through shared memory, and as far ahead as it has registers. The product is
`mma.sync.m16n8k16`: 16 of the matrix's rows by 8 rows of activations, whose sum has one order
whatever rows run beside it. Tensors here are threads: element i of a tensor [32 * warps] is what
thread i holds, and lane 4 g + q of a warp owns row g and row g + 8 of its tile.

Sums of a block's integer codes with its activations are exact products summed in float32; the
block's scale multiplies the sum.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"
# ruff: noqa: RUF005 - Triton's tuples know `+` alone

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.quant.fragments_triton import activations, block_product, constant, halves, pairs
from gemmarunner.quant.linear_triton import gelu


@triton.jit
def _step_words(codes, scale, step, steps, live, lower, PIECES: tl.constexpr, TALL: tl.constexpr):
    """Codes and scales of a step of TALL tiles, for each (PIECES + 1) * 4 words a thread."""
    words = ()
    for i in tl.static_range(TALL):
        there = live if i == 0 else live & lower
        place = step + i * steps
        for piece in tl.static_range(PIECES):
            words = words + constant(codes + (place * (PIECES * 128) + piece * 128), there)
        words = words + constant(scale + place * 32, there)
    return words


@triton.jit
def _block_rows(x, step, block: tl.constexpr, row, R, K, live,
                GROUPS: tl.constexpr, TAIL: tl.constexpr):  # fmt: skip
    """What a thread multiplies of a block of activations: 4 words of each group of rows."""
    k = step * 128 + 32 * block
    rows = ()
    for group in tl.static_range(GROUPS):
        there = live & (row + 8 * group < R)
        if TAIL:
            there = there & (k < K)
        rows = rows + (activations(x + (group * 8 * K + k), there),)
    return rows


@triton.jit
def _block_sums(old, words, rows, block: tl.constexpr, FORMAT: tl.constexpr, PIECES: tl.constexpr,
                GROUPS: tl.constexpr, TALL: tl.constexpr):  # fmt: skip
    """`old` and the products of a block: 4 sums a thread for each tile and group."""
    EACH: tl.constexpr = (PIECES + 1) * 4  # words of a tile
    HALF: tl.constexpr = PIECES // 2  # of a row's block
    new = ()
    for i in tl.static_range(TALL):
        upper = pairs(words, i * EACH + 2 * block * HALF, FORMAT)
        lower = pairs(words, i * EACH + (2 * block + 1) * HALF, FORMAT)
        factors = halves(words[i * EACH + 4 * PIECES + block])
        for group in tl.static_range(GROUPS):
            r = rows[group]
            part = block_product(upper, lower, r)
            new = new + (
                tl.fma(part[0], factors[0], old[4 * (i * GROUPS + group)]),
                tl.fma(part[1], factors[0], old[4 * (i * GROUPS + group) + 1]),
                tl.fma(part[2], factors[1], old[4 * (i * GROUPS + group) + 2]),
                tl.fma(part[3], factors[1], old[4 * (i * GROUPS + group) + 3]),
            )
    return new


@triton.jit
def turn_words(codes, scale, begin, last, steps, exists, lower, PIECES: tl.constexpr,
               TALL: tl.constexpr, DEEP: tl.constexpr, AHEAD: tl.constexpr):  # fmt: skip
    """What `_step_words` reads, of each of the AHEAD steps of a warp's turn from `begin` on."""
    found = ()
    for i in tl.static_range(AHEAD):
        step = begin + i * DEEP
        words = _step_words(codes, scale, step, steps, exists & (step < last), lower, PIECES, TALL)
        found = found + (words,)
    return found


@triton.jit
def summed(following, codes, scale, x, row, R, K, mine, last, each, steps, exists, lower,
           FORMAT: tl.constexpr, PIECES: tl.constexpr, TAIL: tl.constexpr, GROUPS: tl.constexpr,
           TALL: tl.constexpr, DEEP: tl.constexpr, AHEAD: tl.constexpr):  # fmt: skip
    """A warp's 4 * TALL * GROUPS sums over every DEEP-th step from `mine` to `last`.

    `following`: the words of its first turn. `x`: where a thread's columns of its first row begin.
    """
    EARLY: tl.constexpr = 4 if GROUPS <= 2 else 1  # more would take all registers
    sums = ()
    for _ in tl.static_range(4 * TALL * GROUPS):
        sums = sums + (tl.zeros(mine.shape, tl.float32),)
    for turn in range(tl.cdiv(each, DEEP * AHEAD)):
        words = following
        begin = mine + turn * (DEEP * AHEAD)
        following = turn_words(
            codes, scale, begin + AHEAD * DEEP, last, steps, exists, lower,
            PIECES, TALL, DEEP, AHEAD,
        )  # fmt: skip
        for i in tl.static_range(AHEAD):
            step = begin + i * DEEP
            rows = ()  # of each block, loaded EARLY blocks before they are multiplied
            for block in tl.static_range(4 + EARLY):
                if block < 4:
                    rows = rows + (
                        _block_rows(x, step, block, row, R, K, step < last, GROUPS, TAIL),
                    )
                if block >= EARLY:
                    sums = _block_sums(
                        sums, words[i], rows[block - EARLY], block - EARLY,
                        FORMAT, PIECES, GROUPS, TALL,
                    )  # fmt: skip
    return sums


@triton.jit
def _met(sums, SIDE: tl.constexpr, WARPS: tl.constexpr):
    """The sums [SIDE * WARPS * 32, 2, 2] of WARPS warps as one, by halves: the text's order."""
    if WARPS == 1:
        met = sums
    else:
        halves = sums.reshape(SIDE, 2, WARPS // 2 * 32, 2, 2).permute(0, 2, 3, 4, 1)
        one, other = halves.split()
        met = _met((one + other).reshape(SIDE * WARPS // 2 * 32, 2, 2), SIDE, WARPS // 2)
    return met


@triton.jit
def _tanh(x):
    return 1 - 2 / (tl.exp(2 * x) + 1)


PARTS = tl.constexpr(0)
GATE_UP = tl.constexpr(1)
SOFTCAP = tl.constexpr(2)
PLE_GATE = tl.constexpr(3)


@triton.jit(do_not_specialize=["R"])
def product(
    x,  # [R, K]
    codes,  # [tiles, steps, PIECES, 32, 4] int32
    scale,  # [tiles, steps, 8, 4] int32, pairs of float16
    ple,  # [R, N] or anything
    out,  # [splits, R, N]
    R,
    K,
    N,  # of GATE_UP half of the matrix's rows
    tiles,
    steps,
    each,  # steps of a split
    softcap,
    OPERATION: tl.constexpr,
    FORMAT: tl.constexpr,
    PIECES: tl.constexpr,  # of 16 bytes of codes a thread and step
    TAIL: tl.constexpr,  # K ends within a step
    GROUPS: tl.constexpr,  # of 8 rows, a program
    TALL: tl.constexpr,  # tiles a warp
    SIDE: tl.constexpr,  # warps beside each other
    DEEP: tl.constexpr,  # warps that share a tile's steps
    AHEAD: tl.constexpr,  # steps a turn, all loaded a turn ahead
    PDL: tl.constexpr,
):
    """Rows of x times the matrix, 16 * TALL * SIDE of its rows a program."""
    thread = tl.arange(0, 32 * SIDE * DEEP)
    lane = thread % 32
    tile = (tl.program_id(0) * SIDE + thread // (32 * DEEP)) * TALL
    first = tl.program_id(1) * each
    last = tl.minimum(first + each, steps)
    mine = first + thread // 32 % DEEP
    row = tl.program_id(2) * (8 * GROUPS) + lane // 4
    x_at = x + row.to(tl.int64) * K + lane % 4 * 8
    if PDL:
        gdc_launch_dependents()
    place = tl.minimum(tile, tiles - 1).to(tl.int64) * steps
    codes += place * (PIECES * 128) + lane * 4
    scale += place * 32 + lane // 4 * 4
    exists, lower = tile < tiles, tile + 1 < tiles
    words = turn_words(codes, scale, mine, last, steps, exists, lower, PIECES, TALL, DEEP, AHEAD)
    if PDL:
        gdc_wait()
    sums = summed(
        words, codes, scale, x_at, row, R, K, mine, last, each, steps, exists, lower,
        FORMAT, PIECES, TAIL, GROUPS, TALL, DEEP, AHEAD,
    )  # fmt: skip
    out += tl.program_id(1).to(tl.int64) * R * N
    if GROUPS == 1:
        _store_few(sums, ple, out, R, N, softcap, OPERATION, TALL, SIDE, DEEP)
    else:
        _store(sums, ple, out, R, N, softcap, OPERATION, GROUPS, TALL, SIDE, DEEP)


@triton.jit
def _store(sums, ple, out, R, N, softcap, OPERATION: tl.constexpr, GROUPS: tl.constexpr,
           TALL: tl.constexpr, SIDE: tl.constexpr, DEEP: tl.constexpr):  # fmt: skip
    """Sums of all warps of a tile, bent as the operation says: [threads, column's parity, half]."""
    thread = tl.arange(0, 32 * SIDE)
    side, lane = thread // 32, thread % 32
    odd = tl.arange(0, 2)[None, :]
    half = tl.arange(0, 2)[None, None, :]
    for part in tl.static_range(TALL * GROUPS):
        upper = tl.join(sums[part * 4], sums[part * 4 + 1])
        lower = tl.join(sums[part * 4 + 2], sums[part * 4 + 3])
        total = _met(tl.join(upper, lower), SIDE, DEEP)
        tile = (tl.program_id(0) * SIDE + side) * TALL + part // GROUPS
        row = ((tl.program_id(2) * GROUPS + part % GROUPS) * 8 + lane % 4 * 2)[:, None] + odd
        if OPERATION == GATE_UP:
            gate, up = total.split()
            _put(out, gelu(gate) * up, row, (tile * 8 + lane // 4)[:, None], R, N)
        else:
            row = row[:, :, None]
            n = (tile * 16 + lane // 4)[:, None, None] + 8 * half
            _put(out, _bent(total, ple, row, n, R, N, softcap, OPERATION), row, n, R, N)


@triton.jit
def met_alone(sums, WARPS: tl.constexpr):
    """As `_met`, of sums [SIDE, WARPS, 32]: [SIDE, 32]."""
    if WARPS == 1:
        met = sums.reshape(sums.shape[0], 32)
    else:
        halves = sums.reshape(sums.shape[0], 2, WARPS // 2, 32).permute(0, 2, 3, 1)
        one, other = halves.split()
        met = met_alone(one + other, WARPS // 2)
    return met


@triton.jit
def _store_few(sums, ple, out, R, N, softcap, OPERATION: tl.constexpr, TALL: tl.constexpr,
               SIDE: tl.constexpr, DEEP: tl.constexpr):  # fmt: skip
    """As `_store` for one group, sum by sum: 2 to 4% of a whole step sooner, with more 8% later."""
    side = tl.arange(0, SIDE)[:, None]
    lane = tl.arange(0, 32)[None, :]
    for part in tl.static_range(TALL):
        tile = (tl.program_id(0) * SIDE + side) * TALL + part
        for i in tl.static_range(2):
            upper = met_alone(sums[part * 4 + i].reshape(SIDE, DEEP, 32), DEEP)
            lower = met_alone(sums[part * 4 + 2 + i].reshape(SIDE, DEEP, 32), DEEP)
            row = tl.program_id(2) * 8 + lane % 4 * 2 + i
            if OPERATION == GATE_UP:
                _put(out, gelu(upper) * lower, row, tile * 8 + lane // 4, R, N)
            else:
                n = tile * 16 + lane // 4
                upper = _bent(upper, ple, row, n, R, N, softcap, OPERATION)
                lower = _bent(lower, ple, row, n + 8, R, N, softcap, OPERATION)
                _put(out, upper, row, n, R, N)
                _put(out, lower, row, n + 8, R, N)


@triton.jit
def _bent(total, ple, row, n, R, N, softcap, OPERATION: tl.constexpr):
    """What becomes of a sum."""
    if OPERATION == SOFTCAP:
        total = softcap * _tanh(total / softcap)
    elif OPERATION == PLE_GATE:
        at = row.to(tl.int64) * N + n
        factor = tl.load(ple + at, mask=(row < R) & (n < N), other=0.0)
        total = gelu(total) * factor.to(tl.float32)
    return total


@triton.jit
def _put(out, value, row, n, R, N):
    at = row.to(tl.int64) * N + n
    tl.store(out + at, value.to(out.dtype.element_ty), mask=(row < R) & (n < N))
