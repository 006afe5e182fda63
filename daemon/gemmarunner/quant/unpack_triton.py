"""Packed words to exact small integers in bf16, in registers: half an instruction a weight a step.

An integer below 128 put into the mantissa of 128.0 (0x4300) is that number plus 128; one fused
multiply-add takes 128 and the format's own offset away again, for two weights at once. No integer
is converted to a float, which a GPU does at an eighth of its rate. The PTX works on pairs of words,
but each result hangs on its own word alone. Without `FAST` plain arithmetic gives the same numbers.
"""


# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"

import triton
import triton.language as tl

_ONE = "0x3F803F80"  # 1.0, twice


def _four_bits(offset: str, high_bits: int = 0) -> str:
    """PTX of 8 results from two words' 4-bit fields and the bits above them; plus `offset`."""
    lines = [
        ".reg .b32 even, odd, t, h, one, offset;",
        "prmt.b32 even, $8, $9, 0x5410;",
        "prmt.b32 odd, $8, $9, 0x7632;",
        f"mov.b32 one, {_ONE};",
        f"mov.b32 offset, {offset};",
    ]
    mask = "0x00100010" if high_bits == 1 else "0x00300030"
    for i in range(8):
        half, shift = ("even", 4 * i) if i < 4 else ("odd", 4 * (i - 4))
        lines += [f"shr.u32 t, {half}, {shift};", "lop3.b32 t, t, 0x000f000f, 0x43004300, 0xEA;"]
        if high_bits:
            up = 4 - high_bits * i
            lines += [f"shl.b32 h, $10, {up};" if up >= 0 else f"shr.u32 h, $10, {-up};"]
            lines += [f"lop3.b32 t, h, {mask}, t, 0xEA;"]
        lines += [f"fma.rn.bf16x2 ${i}, t, one, offset;"]
    return "{\n" + "\n".join(lines) + "\n}"


def _eight_bits() -> str:
    """PTX of 4 results from two words' signed bytes: 7 lower bits less the sign's 128."""
    lines = [
        ".reg .b32 even, odd, t, low, sign, minus;",
        "prmt.b32 even, $4, $5, 0x5410;",
        "prmt.b32 odd, $4, $5, 0x7632;",
        "mov.b32 minus, 0xBF80BF80;",
    ]
    for i in range(4):
        lines += [
            f"shr.u32 t, {'even' if i < 2 else 'odd'}, {8 * (i % 2)};",
            "lop3.b32 low, t, 0x007f007f, 0x43004300, 0xEA;",
            "lop3.b32 sign, t, 0x00800080, 0x43004300, 0xEA;",
            f"fma.rn.bf16x2 ${i}, sign, minus, low;",
        ]
    return "{\n" + "\n".join(lines) + "\n}"


_Q4_0 = tl.constexpr(_four_bits("0xC308C308"))  # -136
_Q4_K = tl.constexpr(_four_bits("0xC300C300"))  # -128
_Q5_K = tl.constexpr(_four_bits("0xC300C300", 1))
_Q6_K = tl.constexpr(_four_bits("0xC320C320", 2))  # -160
_Q8_0 = tl.constexpr(_eight_bits())
_EIGHT = tl.constexpr("=r,=r,=r,=r,=r,=r,=r,=r,r,r")
_EIGHT_HIGH = tl.constexpr("=r,=r,=r,=r,=r,=r,=r,=r,r,r,r")
_FOUR = tl.constexpr("=r,=r,=r,=r,r,r")
_BF16X4 = tl.constexpr((tl.bfloat16,) * 4)
_BF16X8 = tl.constexpr((tl.bfloat16,) * 8)


@triton.jit
def signed_bytes(words, dtype: tl.constexpr, FAST: tl.constexpr):
    """The 4 blocks [N, BLOCK] in words [N, BLOCK] int32 of Q8_0."""
    if FAST:
        blocks = tl.inline_asm_elementwise(_Q8_0, _FOUR, [words], _BF16X4, is_pure=True, pack=2)
    else:
        a = ((words << 24) >> 24).to(tl.float32).to(dtype)
        b = ((words << 16) >> 24).to(tl.float32).to(dtype)
        c = ((words << 8) >> 24).to(tl.float32).to(dtype)
        d = (words >> 24).to(tl.float32).to(dtype)
        blocks = a, b, c, d
    return blocks


@triton.jit
def _field(words, high, i: tl.constexpr, HIGH_BITS: tl.constexpr, OFFSET: tl.constexpr, dtype):
    code = (words >> (4 * i)) & 15
    if HIGH_BITS > 0:
        bits = (high.to(tl.int32) >> (HIGH_BITS * i)) & ((1 << HIGH_BITS) - 1)
        code = code | (bits << 4)
    return (code - OFFSET).to(tl.float32).to(dtype)


@triton.jit
def nibbles(
    words,
    high,
    HIGH_BITS: tl.constexpr,
    OFFSET: tl.constexpr,
    dtype: tl.constexpr,
    FAST: tl.constexpr,
):
    """The 8 blocks [N, BLOCK] in words [N, BLOCK] int32 and int16 bits above them, less OFFSET."""
    if not FAST:
        a = _field(words, high, 0, HIGH_BITS, OFFSET, dtype)
        b = _field(words, high, 1, HIGH_BITS, OFFSET, dtype)
        c = _field(words, high, 2, HIGH_BITS, OFFSET, dtype)
        d = _field(words, high, 3, HIGH_BITS, OFFSET, dtype)
        e = _field(words, high, 4, HIGH_BITS, OFFSET, dtype)
        f = _field(words, high, 5, HIGH_BITS, OFFSET, dtype)
        g = _field(words, high, 6, HIGH_BITS, OFFSET, dtype)
        h = _field(words, high, 7, HIGH_BITS, OFFSET, dtype)
        blocks = a, b, c, d, e, f, g, h
    elif HIGH_BITS == 2:
        blocks = tl.inline_asm_elementwise(_Q6_K, _EIGHT_HIGH, [words, high], _BF16X8, True, 2)
    elif HIGH_BITS == 1:
        blocks = tl.inline_asm_elementwise(_Q5_K, _EIGHT_HIGH, [words, high], _BF16X8, True, 2)
    elif OFFSET == 8:
        blocks = tl.inline_asm_elementwise(_Q4_0, _EIGHT, [words], _BF16X8, True, 2)
    else:
        blocks = tl.inline_asm_elementwise(_Q4_K, _EIGHT, [words], _BF16X8, True, 2)
    return blocks
