"""Triton kernels: rows times a packed matrix, unpacked in registers on its way to tensor cores.

The matrix is the tensor core's first operand, so a tile of 16 of its rows costs the same for 1 to 8
activation rows and hardly more for 16. Products of a block's integer codes with its activations are
summed exactly as they are; the block's scale multiplies the sum, in float32, not each weight.

The warps of a program share a tile of rows and take turns at its steps: a warp alone waits most of
its time, so the smaller the matrix, the more warps a tile. All products are a batch of one matrix
a warp, for which Triton has one instruction whatever the number of rows (`mma.sync.m16n8k16`).
"""


# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.quant.unpack_triton import nibbles, signed_bytes


@triton.jit
def _blocks(words, high, FORMAT: tl.constexpr, dtype: tl.constexpr, FAST: tl.constexpr):
    if FORMAT == "q8_0":
        blocks = signed_bytes(words, dtype, FAST)
    elif FORMAT == "q4_0":
        blocks = nibbles(words, high, 0, 8, dtype, FAST)
    elif FORMAT == "q4_k":
        blocks = nibbles(words, high, 0, 0, dtype, FAST)
    elif FORMAT == "q5_k":
        blocks = nibbles(words, high, 1, 0, dtype, FAST)
    else:
        blocks = nibbles(words, high, 2, 32, dtype, FAST)
    return blocks


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
def _number(words, i: tl.constexpr, dtype: tl.constexpr):
    """The i-th of `_numbers` in float32."""
    bits: tl.constexpr = dtype.primitive_bitwidth
    word = words[i * bits // 64] >> (i * bits % 64)
    if dtype == tl.float16:
        number = word.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    elif dtype == tl.int8:
        number = word.to(tl.int8).to(tl.float32)
    else:
        number = (word.to(tl.int32) & 255).to(tl.float32)
    return number


@triton.jit
def _fetch_ahead(
    codes, n, width, first, last, BLOCK: tl.constexpr, BN: tl.constexpr, WARPS: tl.constexpr
):
    """Ask for the tile's words, which no kernel writes, to be brought into L2; each once.

    Not by a bulk prefetch, which one thread of a warp after the other would have to start.
    """
    pieces: tl.constexpr = 32 * WARPS // BN  # one address a thread
    for begin in range(first * BLOCK, last * BLOCK, pieces * 16):
        word = tl.minimum(begin + tl.arange(0, pieces) * 16, last * BLOCK - 16)
        at = codes + (n.to(tl.int64) * width)[:, None] + word[None, :]
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [at], tl.int32, False, 1
        )


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
        if FAST:
            _fetch_ahead(codes, n, width, first, last, BLOCK, BN, WARPS)
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
            blocks = _blocks(words, above, FORMAT, dtype, FAST)
        else:
            blocks = _blocks(words, words, FORMAT, dtype, FAST)
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
            factor = _number(scales, i, scale.dtype.element_ty)
            if super_scale is not None:
                factor = factor * super_factor
            part = tl.dot(blocks[i], rows, input_precision="ieee")
            total = tl.fma(part, tl.broadcast_to(factor[:, :, None], total.shape), total)
            if minimum is not None:
                least = _number(leasts, i, minimum.dtype.element_ty) * super_least
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


@triton.jit
def _tanh(x):
    return 1 - 2 / (tl.exp(2 * x) + 1)


@triton.jit
def _gelu(x):
    return 0.5 * x * (1 + _tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


@triton.jit(do_not_specialize=["R"])
def product(
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
    each,
    softcap,
    FORMAT: tl.constexpr,
    BLOCK: tl.constexpr,
    FIELDS: tl.constexpr,
    TAIL: tl.constexpr,
    FAST: tl.constexpr,
    BN: tl.constexpr,
    WARPS: tl.constexpr,
    ROWS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [splits, R, N]: partial sums over `each` steps; bent or gated if there is one split."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    r = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * each
    total = _product(
        x, codes, scale, high, minimum, super_scale, super_minimum,
        tl.minimum(n, N - 1), r, R, K, N, width, first, tl.minimum(first + each, steps),
        FORMAT, BLOCK, FIELDS, TAIL, FAST, WARPS, PDL,
    )  # fmt: skip
    at = r[None, :].to(tl.int64) * N + n[:, None]
    live = (r < R)[None, :] & (n < N)[:, None]
    if SOFTCAP:
        total = softcap * _tanh(total / softcap)
    if ple is not None:
        total = _gelu(total) * tl.load(ple + at, mask=live, other=0.0).to(tl.float32)
    start = tl.program_id(1).to(tl.int64) * R * N
    tl.store(out + start + at, total.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["R"])
def gated_product(
    x,
    codes,
    scale,
    high,
    minimum,
    super_scale,
    super_minimum,
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
    """out [R, N / 2] = gelu(gate) * up; a tile holds BN / 2 rows of each, turn by turn."""
    tile = tl.arange(0, BN)
    inner = N // 2
    n = tl.program_id(0) * (BN // 2) + tile // 2
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    total = _product(
        x, codes, scale, high, minimum, super_scale, super_minimum,
        tl.minimum(n, inner - 1) + tile % 2 * inner, r, R, K, N, width, 0, steps,
        FORMAT, BLOCK, FIELDS, TAIL, FAST, WARPS, PDL,
    )  # fmt: skip
    gate, up = total.reshape(BN // 2, 2, ROWS).permute(0, 2, 1).split()
    n = tl.program_id(0) * (BN // 2) + tl.arange(0, BN // 2)
    at = r[None, :].to(tl.int64) * inner + n[:, None]
    live = (r < R)[None, :] & (n < inner)[:, None]
    tl.store(out + at, (_gelu(gate) * up).to(out.dtype.element_ty), mask=live)


@triton.jit
def unpack(
    codes,
    scale,
    high,
    minimum,
    super_scale,
    super_minimum,
    out,
    K,
    N,
    width,
    FORMAT: tl.constexpr,
    BLOCK: tl.constexpr,
    FIELDS: tl.constexpr,
    BN: tl.constexpr,
    FAST: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [N, K]: the weights, one step of BN rows a program."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    step = tl.program_id(1)
    inside = (n < N)[:, None]
    n = tl.minimum(n, N - 1)
    j = tl.arange(0, BLOCK)
    at = n[:, None].to(tl.int64) * width + step * BLOCK + j[None, :]
    words = tl.load(codes + at)
    above = tl.load(high + at).to(tl.int16) if high is not None else words
    blocks = _blocks(words, above, FORMAT, tl.bfloat16 if FAST else tl.float32, FAST)
    over = step * BLOCK * FIELDS // 256 * N + n
    for i in tl.static_range(FIELDS):
        block = (step * N + n) * FIELDS + i
        factor = tl.load(scale + block).to(tl.float32)
        if super_scale is not None:
            factor = tl.load(super_scale + over).to(tl.float32) * factor
        weights = blocks[i].to(tl.float32) * factor[:, None]
        if minimum is not None:
            least = tl.load(super_minimum + over).to(tl.float32)
            weights = weights - (least * tl.load(minimum + block).to(tl.float32))[:, None]
        k = (step * FIELDS + i) * BLOCK + j
        mask = inside & (k < K)[None, :]
        to = out + n[:, None].to(tl.int64) * K + k[None, :]
        tl.store(to, weights.to(out.dtype.element_ty), mask=mask)
