"""The numbers of `engine.noise` inside a Triton kernel."""

import triton
import triton.language as tl

_TOKEN_BITS = tl.constexpr(20)
_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_MIX_A = tl.constexpr(0xBF58476D1CE4E5B9)
_MIX_B = tl.constexpr(0x94D049BB133111EB)
_ULP = tl.constexpr(2.0**-52)


@triton.jit
def uniform(key, position, ids):  # type: ignore[no-untyped-def]
    """A number f64 from 0 to 1 for each of `ids`, of stream `key` at text index `position`."""
    number = (position.to(tl.int64) << _TOKEN_BITS) + ids
    state = number.to(tl.uint64) * _GOLDEN + key.to(tl.uint64)
    state = (state ^ (state >> 30)) * _MIX_A
    state = (state ^ (state >> 27)) * _MIX_B
    state = state ^ (state >> 31)
    return ((state >> 12).to(tl.float64) + 0.5) * _ULP
