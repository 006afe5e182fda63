"""The numbers of `engine.noise`, for many streams and places at once, on the device."""

from torch import Tensor

_TOKEN_BITS = 20  # number n is (position << 20) | token id
_ULP = 2.0**-52


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


GOLDEN = _signed(0x9E3779B97F4A7C15)
MIX_A = _signed(0xBF58476D1CE4E5B9)
MIX_B = _signed(0x94D049BB133111EB)


def uniform(key: Tensor, position: Tensor, ids: Tensor) -> Tensor:
    """Numbers [R, C] f64 drawn evenly from 0 to 1.

    By row the stream's `key` [R] int64 and the text index `position` [R]; `ids` [R, C] int64.
    """
    number = (position.long() << _TOKEN_BITS)[:, None] + ids
    state = number * GOLDEN + key[:, None]
    state = (state ^ _shifted(state, 30)) * MIX_A
    state = (state ^ _shifted(state, 27)) * MIX_B
    state = state ^ _shifted(state, 31)
    return (_shifted(state, 12).double() + 0.5) * _ULP


def log_uniform(key: Tensor, position: Tensor, ids: Tensor) -> Tensor:
    """Their logarithms, as f32."""
    return uniform(key, position, ids).log().float()


def _shifted(state: Tensor, places: int) -> Tensor:
    """`state` as unsigned, shifted right; torch has no such shift."""
    return (state >> places) & ((1 << (64 - places)) - 1)
