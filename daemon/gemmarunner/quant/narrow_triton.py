"""Triton kernel for a packed matrix of few rows, whose sums may not be split over programs.

Such a product is nothing but latency: 16 rows a program, and its warps share their steps. All
products are a batch of one matrix a warp, for which Triton has one instruction whatever the number
of activation rows (`mma.sync.m16n8k16`). Otherwise as `linear_triton`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.quant.linear_triton import gelu, number, unpacked_blocks


@triton.jit
def _numbers(plane, step, live, N, n, FIELDS: tl.constexpr):
    """The numbers of a step's blocks as whole words [WARPS, BN], zero in a step not `live`."""
    if FIELDS * plane.dtype.element_ty.primitive_bitwidth == 128:
        wide = plane.to(tl.pointer_type(tl.int64)) + (step * N + n) * 2
        words = tl.load(wide, mask=live, other=0), tl.load(wide + 1, mask=live, other=0)
    else:
        wide = plane.to(tl.pointer_type(tl.int64)) + (step * N + n)
        word = tl.load(wide, mask=live, other=0)
        words = word, word
    return words


@triton.jit
def _product(
    x,
    codes,
    scale,
    high,
    minimum,
    super_scale,
    super_minimum,
    n,
    r,
    R,
    K,
    N,
    width,
    first,
    last,
    FORMAT: tl.constexpr,
    BLOCK: tl.constexpr,
    FIELDS: tl.constexpr,
    TAIL: tl.constexpr,
    FAST: tl.constexpr,
    WARPS: tl.constexpr,
    PDL: tl.constexpr,
):
    """The weights' rows n [BN] times x's rows r [ROWS] over steps first..last: [BN, ROWS] f32.

    Each warp takes every WARPS-th step; their sums meet in a tree, whose shape the matrix fixes.
    """
    BN: tl.constexpr = n.shape[0]
    ROWS: tl.constexpr = r.shape[0]
    dtype: tl.constexpr = x.dtype.element_ty
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    j = tl.arange(0, BLOCK)
    warp = tl.arange(0, WARPS)
    x_at = x + (r.to(tl.int64) * K)[None, None, :] + j[None, :, None]
    words_at = (n.to(tl.int64) * width)[None, :, None] + j[None, None, :]
    ones = tl.full((WARPS, BN, BLOCK), 1.0, tl.float32).to(dtype)
    total = tl.full((WARPS, BN, ROWS), 0.0, tl.float32)
    for begin in range(first, last, WARPS):
        inside = (begin + warp < last)[:, None]
        step = tl.minimum(begin + warp, last - 1)  # one twice: its second scale is zero
        scales = _numbers(scale, step[:, None], inside, N, n[None, :], FIELDS)
        words = tl.load(codes + words_at + (step * BLOCK)[:, None, None])
        if high is not None:
            above = tl.load(high + words_at + (step * BLOCK)[:, None, None]).to(tl.int16)
            blocks = unpacked_blocks(words, above, FORMAT, dtype, FAST)
        else:
            blocks = unpacked_blocks(words, words, FORMAT, dtype, FAST)
        over = (step * (BLOCK * FIELDS) // 256 * N)[:, None] + n[None, :]
        if super_scale is not None:
            super_factor = tl.load(super_scale + over).to(tl.float32)
        if minimum is not None:
            super_least = tl.load(super_minimum + over).to(tl.float32)
            leasts = _numbers(minimum, step[:, None], inside, N, n[None, :], FIELDS)
        for i in tl.static_range(FIELDS):
            k = ((step * FIELDS + i) * BLOCK)[:, None, None]
            live = (r < R)[None, None, :]
            if TAIL:
                live = live & (k + j[None, :, None] < K)
            rows = tl.load(x_at + k, mask=live, other=0.0)
            factor = number(scales, i, scale.dtype.element_ty)
            if super_scale is not None:
                factor = factor * super_factor
            part = tl.dot(blocks[i], rows, input_precision="ieee")
            total = tl.fma(part, tl.broadcast_to(factor[:, :, None], total.shape), total)
            if minimum is not None:
                least = number(leasts, i, minimum.dtype.element_ty) * super_least
                # A product, for its order of sums is that of all row counts; tl.sum's is not.
                sums = tl.dot(ones, rows, input_precision="ieee")
                total = tl.fma(sums, tl.broadcast_to(-least[:, :, None], total.shape), total)
    return _met(total, WARPS, BN, ROWS)


@triton.jit
def _met(total, WARPS: tl.constexpr, BN: tl.constexpr, ROWS: tl.constexpr):
    """The sum over warps, by halves: the order stands in the text, whatever the layout."""
    if WARPS == 1:
        met = total.reshape(BN, ROWS)
    else:
        pairs = total.reshape(2, WARPS // 2, BN, ROWS).permute(1, 2, 3, 0)
        one, other = pairs.split()
        met = _met(one + other, WARPS // 2, BN, ROWS)
    return met


@triton.jit(do_not_specialize=["R"])
def narrow(
    x,
    codes,
    scale,
    high,
    minimum,
    super_scale,
    super_minimum,
    ple,
    out,
    R,
    K,
    N,
    width,
    steps,
    FORMAT: tl.constexpr,
    BLOCK: tl.constexpr,
    FIELDS: tl.constexpr,
    TAIL: tl.constexpr,
    FAST: tl.constexpr,
    BN: tl.constexpr,
    WARPS: tl.constexpr,
    ROWS: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [R, N] = gelu(sums) * ple."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    total = _product(
        x, codes, scale, high, minimum, super_scale, super_minimum,
        tl.minimum(n, N - 1), r, R, K, N, width, 0, steps,
        FORMAT, BLOCK, FIELDS, TAIL, FAST, WARPS, PDL,
    )  # fmt: skip
    at = r[None, :].to(tl.int64) * N + n[:, None]
    live = (r < R)[None, :] & (n < N)[:, None]
    total = gelu(total) * tl.load(ple + at, mask=live, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=live)
