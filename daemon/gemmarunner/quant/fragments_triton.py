"""What a thread does with fragments of a matrix, in PTX: loads, unpacks and multiplies them.

A tensor here is a warp's or a program's threads, an element each; a word is what one of them holds.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"

import triton
import triton.language as tl

_ONE = "0x3F803F80"  # 1.0, twice, in bf16


def _four_bits(offset: str) -> str:
    """PTX of 4 pairs of bf16 from the 8 fields of a word: field i and 4 + i are pair i."""
    lines = [".reg .b32 t, one, offset;", f"mov.b32 one, {_ONE};", f"mov.b32 offset, {offset};"]
    for i in range(4):
        lines += [f"shr.u32 t, $4, {4 * i};", "lop3.b32 t, t, 0x000f000f, 0x43004300, 0xEA;"]
        lines += [f"fma.rn.bf16x2 ${i}, t, one, offset;"]
    return "{\n" + "\n".join(lines) + "\n}"


def _eight_bits() -> str:
    """PTX of 2 pairs of bf16 from a word's signed bytes: bytes i and 2 + i are pair i."""
    lines = [".reg .b32 t, low, sign, minus;", "mov.b32 minus, 0xBF80BF80;"]
    for i in range(2):
        lines += [
            f"shr.u32 t, $2, {8 * i};",
            "lop3.b32 low, t, 0x007f007f, 0x43004300, 0xEA;",
            "lop3.b32 sign, t, 0x00800080, 0x43004300, 0xEA;",
            f"fma.rn.bf16x2 ${i}, sign, minus, low;",
        ]
    return "{\n" + "\n".join(lines) + "\n}"


def _block_product() -> str:
    """PTX of [16, 32] times [32, 8]: $0-3 the sums, $4-11 the weights' pairs, $12-15 x's."""
    kind = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
    return "\n".join(
        [
            "{",
            ".reg .f32 z, a, b, c, d;",
            "mov.f32 z, 0f00000000;",
            f"{kind} {{a, b, c, d}}, {{$4, $8, $5, $9}}, {{$12, $13}}, {{z, z, z, z}};",
            f"{kind} {{$0, $1, $2, $3}}, {{$6, $10, $7, $11}}, {{$14, $15}}, {{a, b, c, d}};",
            "}",
        ]
    )


def _piece(how: str) -> str:
    """PTX of 16 bytes at $4, or zeros where $5 is zero."""
    return "\n".join(
        [
            "{",
            ".reg .pred live;",
            "setp.ne.u32 live, $5, 0;",
            "mov.b32 $0, 0; mov.b32 $1, 0; mov.b32 $2, 0; mov.b32 $3, 0;",
            f"@live ld.global.{how}.v4.u32 {{$0, $1, $2, $3}}, [$4];",
            "}",
        ]
    )


_Q4_0 = tl.constexpr(_four_bits("0xC308C308"))  # -136: 128 of the trick, 8 of the format
_Q8_0 = tl.constexpr(_eight_bits())
_PRODUCT = tl.constexpr(_block_product())
_WEIGHTS = tl.constexpr(_piece("nc.L1::no_allocate"))
_ROWS = tl.constexpr(_piece("ca"))
_HALVES = tl.constexpr(
    "{\n.reg .b16 l, h;\nmov.b32 {l, h}, $2;\ncvt.f32.f16 $0, l;\ncvt.f32.f16 $1, h;\n}"
)
_PIECE = tl.constexpr("=&r,=&r,=&r,=&r,l,r")
_WORD_TO_4 = tl.constexpr("=&r,=&r,=&r,=&r,r")
_WORD_TO_2 = tl.constexpr("=&r,=&r,r")
_WORD_TO_FLOATS = tl.constexpr("=f,=f,r")
_SUMS = tl.constexpr("=f,=f,=f,=f,r,r,r,r,r,r,r,r,r,r,r,r")
_I4 = tl.constexpr((tl.int32,) * 4)
_I2 = tl.constexpr((tl.int32,) * 2)
_F4 = tl.constexpr((tl.float32,) * 4)
_F2 = tl.constexpr((tl.float32,) * 2)


@triton.jit
def constant(at, live):
    """16 bytes a thread that no kernel writes, as 4 words; zeros where not `live`."""
    return tl.inline_asm_elementwise(
        _WEIGHTS, _PIECE, [at.to(tl.int64), live.to(tl.int32)], _I4, True, 1
    )


@triton.jit
def activations(at, live):
    """As `constant`, of memory that the kernel before wrote: stays behind the wait for it."""
    return tl.inline_asm_elementwise(
        _ROWS, _PIECE, [at.to(tl.int64), live.to(tl.int32)], _I4, False, 1
    )


@triton.jit
def pairs(words, at: tl.constexpr, FORMAT: tl.constexpr):
    """The 8 weights of a block that a thread has of a row, in words from `at` on, as 4 pairs."""
    if FORMAT == "q4_0":
        return tl.inline_asm_elementwise(_Q4_0, _WORD_TO_4, [words[at]], _I4, True, 1)
    else:  # noqa: RET505 - Triton compiles the one branch
        first = tl.inline_asm_elementwise(_Q8_0, _WORD_TO_2, [words[at]], _I2, True, 1)
        last = tl.inline_asm_elementwise(_Q8_0, _WORD_TO_2, [words[at + 1]], _I2, True, 1)
        return first + last


@triton.jit
def halves(word):
    """A word's two float16 in float32."""
    return tl.inline_asm_elementwise(_HALVES, _WORD_TO_FLOATS, [word], _F2, True, 1)


@triton.jit
def block_product(upper, lower, rows):
    """[16, 32] times [32, 8] of a warp: 4 sums a thread, of rows g and 8 + g two columns each."""
    return tl.inline_asm_elementwise(
        _PRODUCT, _SUMS,
        [upper[0], upper[1], upper[2], upper[3], lower[0], lower[1], lower[2], lower[3],
         rows[0], rows[1], rows[2], rows[3]],
        _F4, True, 1,
    )  # fmt: skip
