"""Triton kernel: the plain numbers of a matrix that `quant.tiled` laid out."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def unpack(
    codes,  # [matrices, tiles, steps, PIECES, 32, 4] int32
    scale,  # [matrices, tiles, steps, 8, 4, 2] float16
    out,  # [matrices, N, K]
    N,
    K,
    tiles,
    steps,
    PIECES: tl.constexpr,
    GATED: tl.constexpr,
    PDL: tl.constexpr,
):
    """A tile's step a program: 16 rows, 128 columns."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    tile, step = tl.program_id(0) % tiles, tl.program_id(1)
    matrix = (tl.program_id(0) // tiles).to(tl.int64)
    r = tl.arange(0, 16)[:, None]
    c = tl.arange(0, 128)[None, :]
    half, g = r // 8, r % 8
    block, lane, pair, last = c // 32, g * 4 + c % 32 // 8, c % 8 // 2, c % 2
    place = (matrix * tiles + tile) * steps + step
    if PIECES == 2:
        word, shift = block // 2 * 128 + block % 2 * 2 + half, 4 * pair + 16 * last
        bits = tl.load(codes + place * 256 + lane * 4 + word)
        code = ((bits >> shift) & 15) - 8
    else:
        word, shift = block * 128 + half * 2 + pair // 2, 8 * (pair % 2) + 16 * last
        bits = tl.load(codes + place * 512 + lane * 4 + word)
        code = (bits << (24 - shift)) >> 24
    factor = tl.load(scale + place * 64 + g * 8 + block * 2 + half).to(tl.float32)
    if GATED:
        row = half * (N // 2) + tile * 8 + g
        inside = tile * 8 + g < N // 2
    else:
        row = tile * 16 + r
        inside = row < N
    at = (matrix * N + row) * K + step * 128 + c
    inside = inside & (step * 128 + c < K)
    tl.store(out + at, (code.to(tl.float32) * factor).to(out.dtype.element_ty), mask=inside)
