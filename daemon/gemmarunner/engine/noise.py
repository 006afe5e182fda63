"""Random numbers indexed by position and token: the same seed and place, the same number, always.

SplitMix64 with random access. The n-th number of a stream depends on (seed, stream, n) alone, so a
token drawn with it does not depend on how many rows were verified together, nor on how many drafts
were thrown away before it.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_A = 0xBF58476D1CE4E5B9
_MIX_B = 0x94D049BB133111EB
_TOKEN_BITS = 20  # number n is (position << 20) | token id; Gemma's vocabulary needs 18
_NARROW = 1024  # columns up to which numpy's lower cost a call wins over torch
_ULP = 2.0**-52
_MULTIPLIERS = np.uint64(_GOLDEN), np.uint64(_MIX_A), np.uint64(_MIX_B)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(12)


def stream_key(seed: int, stream: int) -> int:
    """The 64-bit key of one independent stream of `seed`."""
    return _finish((_finish(seed & _MASK) + (stream + 1) * _GOLDEN) & _MASK)


def log_uniform(key: int, position: int, ids: Tensor) -> Tensor:
    """Logarithms of numbers drawn evenly from 0 to 1, for tokens `ids` [rows, columns] int64.

    Row 0 stands at index `position` of the text, each later row one further. f32, below zero; its
    negative is exponentially distributed. Only under CUDA nothing leaves the device: others may
    know no float64, as MPS does not.
    """
    rows, columns = ids.shape
    offsets = [(key + ((position + row) << _TOKEN_BITS) * _GOLDEN) & _MASK for row in range(rows)]
    device = ids.device.type
    if device == "cuda" or (device == "cpu" and columns > _NARROW):
        bits = _bits_torch(offsets, ids)
        return bits.to(torch.float64).add_(0.5).mul_(_ULP).log_().to(torch.float32)
    bits_cpu = _bits_numpy(offsets, ids.cpu().numpy())
    uniform = (bits_cpu.astype(np.float64) + 0.5) * _ULP
    return torch.from_numpy(np.log(uniform).astype(np.float32)).to(ids.device)


def _finish(state: int) -> int:
    state = ((state ^ (state >> 30)) * _MIX_A) & _MASK
    state = ((state ^ (state >> 27)) * _MIX_B) & _MASK
    return state ^ (state >> 31)


def _bits_numpy(offsets: list[int], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """52 random bits for each id: [rows, columns]."""
    golden, mix_a, mix_b = _MULTIPLIERS
    first, second, third, last = _SHIFTS
    state = ids.view(np.uint64) * golden
    state += np.array(offsets, dtype=np.uint64)[:, None]
    state ^= state >> first
    state *= mix_a
    state ^= state >> second
    state *= mix_b
    state ^= state >> third
    state >>= last
    return state


def _bits_torch(offsets: list[int], ids: Tensor) -> Tensor:
    """The same bits on any device; torch has no unsigned shift, so the sign is masked off."""
    signed = torch.tensor([_signed(offset) for offset in offsets], device=ids.device)
    state = (ids * _signed(_GOLDEN)).add_(signed[:, None])
    state.bitwise_xor_(_shifted(state, 30)).mul_(_signed(_MIX_A))
    state.bitwise_xor_(_shifted(state, 27)).mul_(_signed(_MIX_B))
    state.bitwise_xor_(_shifted(state, 31))
    return _shifted(state, 12)


def _shifted(state: Tensor, places: int) -> Tensor:
    return (state >> places).bitwise_and_((1 << (64 - places)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
