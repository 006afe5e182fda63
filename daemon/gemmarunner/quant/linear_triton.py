"""Triton kernels: rows times a packed matrix, unpacked in registers on its way to tensor cores.

The matrix is the tensor core's first operand, 64 of its rows a program, so that the activations,
which every program reads whole, are few bytes beside it. Its words come through shared memory
straight into the layout of that operand, where unpacking them is all between. From 64 rows and 16
columns of activations on this is Hopper's `wgmma.m64nXk16`, whose sums have one order whatever X.
Products of a block's integer codes with its activations are summed exactly as they are; the block's
scale multiplies the sum, in float32, not each weight.
"""


# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.quant.unpack_triton import nibbles, signed_bytes


@triton.jit
def unpacked_blocks(words, high, FORMAT: tl.constexpr, dtype: tl.constexpr, FAST: tl.constexpr):
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
def _numbers(plane, step, N, n, FIELDS: tl.constexpr):
    """The numbers of a step's blocks as whole words [BN]."""
    if FIELDS * plane.dtype.element_ty.primitive_bitwidth == 128:
        wide = plane.to(tl.pointer_type(tl.int64)) + (step * N + n) * 2
        words = tl.load(wide), tl.load(wide + 1)
    else:
        wide = plane.to(tl.pointer_type(tl.int64)) + (step * N + n)
        word = tl.load(wide)
        words = word, word
    return words


@triton.jit
def number(words, i: tl.constexpr, dtype: tl.constexpr):
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
    PDL: tl.constexpr,
):
    """The weights' rows n [BN] times x's rows r [ROWS] over steps first..last: [BN, ROWS] f32."""
    BN: tl.constexpr = n.shape[0]
    ROWS: tl.constexpr = r.shape[0]
    dtype: tl.constexpr = x.dtype.element_ty
    if PDL:
        gdc_launch_dependents()
    following = _numbers(scale, first, N, n, FIELDS)  # a step early: nothing else hides their way
    if PDL:
        gdc_wait()
    j = tl.arange(0, BLOCK)
    live = (r < R)[:, None]
    x_at = x + r[:, None].to(tl.int64) * K + j[None, :]
    words_at = n[:, None].to(tl.int64) * width + j[None, :]
    ones = tl.full((BN, BLOCK), 1.0, tl.float32).to(dtype)
    total = tl.full((BN, ROWS), 0.0, tl.float32)
    for step in range(first, last):
        scales = following
        following = _numbers(scale, tl.minimum(step + 1, last - 1), N, n, FIELDS)
        words = tl.load(codes + words_at + step * BLOCK)
        if high is not None:
            above = tl.load(high + words_at + step * BLOCK).to(tl.int16)
            blocks = unpacked_blocks(words, above, FORMAT, dtype, FAST)
        else:
            blocks = unpacked_blocks(words, words, FORMAT, dtype, FAST)
        over = step * (BLOCK * FIELDS) // 256 * N + n
        if super_scale is not None:
            super_factor = tl.load(super_scale + over).to(tl.float32)
        if minimum is not None:
            super_least = tl.load(super_minimum + over).to(tl.float32)
            leasts = _numbers(minimum, step, N, n, FIELDS)
        for i in tl.static_range(FIELDS):
            k = (step * FIELDS + i) * BLOCK
            mask = live & (k + j < K)[None, :] if TAIL else live
            rows = tl.load(x_at + k, mask=mask, other=0.0).T
            factor = number(scales, i, scale.dtype.element_ty)
            if super_scale is not None:
                factor = factor * super_factor
            part = tl.dot(blocks[i], rows, input_precision="ieee")
            total = tl.fma(part, tl.broadcast_to(factor[:, None], total.shape), total)
            if minimum is not None:
                least = number(leasts, i, minimum.dtype.element_ty) * super_least
                # A product, for its order of sums is that of all row counts; tl.sum's is not.
                sums = tl.dot(ones, rows, input_precision="ieee")
                total = tl.fma(sums, tl.broadcast_to(-least[:, None], total.shape), total)
    return total


@triton.jit
def _tanh(x):
    return 1 - 2 / (tl.exp(2 * x) + 1)


@triton.jit
def gelu(x):
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
    ROWS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [splits, R, N]: partial sums over `each` steps; bent if there is one split."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    r = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * each
    total = _product(
        x, codes, scale, high, minimum, super_scale, super_minimum,
        tl.minimum(n, N - 1), r, R, K, N, width, first, tl.minimum(first + each, steps),
        FORMAT, BLOCK, FIELDS, TAIL, FAST, PDL,
    )  # fmt: skip
    at = r[None, :].to(tl.int64) * N + n[:, None]
    live = (r < R)[None, :] & (n < N)[:, None]
    if SOFTCAP:
        total = softcap * _tanh(total / softcap)
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
        FORMAT, BLOCK, FIELDS, TAIL, FAST, PDL,
    )  # fmt: skip
    gate, up = total.reshape(BN // 2, 2, ROWS).permute(0, 2, 1).split()
    n = tl.program_id(0) * (BN // 2) + tl.arange(0, BN // 2)
    at = r[None, :].to(tl.int64) * inner + n[:, None]
    live = (r < R)[None, :] & (n < inner)[:, None]
    tl.store(out + at, (gelu(gate) * up).to(out.dtype.element_ty), mask=live)


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
    blocks = unpacked_blocks(words, above, FORMAT, tl.bfloat16 if FAST else tl.float32, FAST)
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
