"""Triton kernels: rows times a packed matrix, unpacked in registers on its way to tensor cores.

The matrix is the tensor core's first operand, so a tile of 16 of its rows costs the same for 1 to 8
activation rows and hardly more for 16. Products of a block's integer codes with its activations are
summed exactly as they are; the block's scale multiplies the sum, in float32, not each weight.
"""

# ruff: noqa: N803 - Triton's own spelling of compile-time constants
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
def _each(at, FIELDS: tl.constexpr):
    """The numbers of a step's blocks, [BN] each: neighbours in memory, one address for all."""
    if FIELDS == 4:
        numbers = tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)
    else:
        numbers = (
            tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3),
            tl.load(at + 4), tl.load(at + 5), tl.load(at + 6), tl.load(at + 7),
        )  # fmt: skip
    return numbers


@triton.jit
def _fetch_ahead(codes, n, width, first, last, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """Ask for the tile's first words, which no kernel writes, to be brought into L2."""
    for step in tl.static_range(STEPS):
        at = codes + n.to(tl.int64) * width + tl.minimum(first + step, last - 1) * BLOCK
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
    PDL: tl.constexpr,
):
    """The weights' rows n [BN] times x's rows r [ROWS] over steps first..last: [BN, ROWS] f32."""
    if PDL:
        gdc_launch_dependents()
        _fetch_ahead(codes, n, width, first, last, BLOCK, 4)
        gdc_wait()
    j = tl.arange(0, BLOCK)
    live = (r < R)[None, :]
    x_at = x + r[None, :].to(tl.int64) * K + j[:, None]
    words_at = n[:, None].to(tl.int64) * width + j[None, :]
    ones = tl.full((n.shape[0], BLOCK), 1.0, tl.float32).to(x.dtype.element_ty)
    total = tl.full((n.shape[0], r.shape[0]), 0.0, tl.float32)
    following = _each(scale + (first * N + n) * FIELDS, FIELDS)
    for step in range(first, last):
        factors = following
        ahead = tl.minimum(step + 1, last - 1) * N  # a step early: nothing else hides their way
        following = _each(scale + (ahead + n) * FIELDS, FIELDS)
        words = tl.load(codes + words_at + step * BLOCK)
        if high is not None:
            above = tl.load(high + words_at + step * BLOCK).to(tl.int16)
            blocks = _blocks(words, above, FORMAT, x.dtype.element_ty, FAST)
        else:
            blocks = _blocks(words, words, FORMAT, x.dtype.element_ty, FAST)
        over = step * (BLOCK * FIELDS) // 256 * N + n
        if super_scale is not None:
            super_factor = tl.load(super_scale + over).to(tl.float32)
        if minimum is not None:
            super_least = tl.load(super_minimum + over).to(tl.float32)
            leasts = _each(minimum + (step * N + n) * FIELDS, FIELDS)
        for i in tl.static_range(FIELDS):
            k = (step * FIELDS + i) * BLOCK
            mask = live & (k + j < K)[:, None] if TAIL else live
            rows = tl.load(x_at + k, mask=mask, other=0.0)
            factor = factors[i].to(tl.float32)
            if super_scale is not None:
                factor = factor * super_factor
            part = tl.dot(blocks[i], rows, input_precision="ieee")
            total = tl.fma(part, tl.broadcast_to(factor[:, None], total.shape), total)
            if minimum is not None:
                least = leasts[i].to(tl.float32) * super_least
                # A product, for its order of sums is that of all row counts; tl.sum's is not.
                sums = tl.dot(ones, rows, input_precision="ieee")
                total = tl.fma(sums, tl.broadcast_to(-least[:, None], total.shape), total)
    return total


@triton.jit
def _tanh(x):
    return 1 - 2 / (tl.exp(2 * x) + 1)


@triton.jit
def _gelu(x):
    return 0.5 * x * (1 + _tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


@triton.jit
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
        FORMAT, BLOCK, FIELDS, TAIL, FAST, PDL,
    )  # fmt: skip
    at = r[None, :].to(tl.int64) * N + n[:, None]
    live = (r < R)[None, :] & (n < N)[:, None]
    if SOFTCAP:
        total = softcap * _tanh(total / softcap)
    if ple is not None:
        total = _gelu(total) * tl.load(ple + at, mask=live, other=0.0).to(tl.float32)
    start = tl.program_id(1).to(tl.int64) * R * N
    tl.store(out + start + at, total.to(out.dtype.element_ty), mask=live)


@triton.jit
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
