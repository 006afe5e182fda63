"""Products of a few rows with a weight matrix, at the speed its bytes can be read.

Up to `MAX_TILE` rows run in own kernels, whose rows are the same bit for bit whatever other rows
run with them; more rows are a library's matrix product, which is the faster there.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gemmarunner.kernels.launch import on_gpu

MAX_TILE = 128  # rows; a step has up to 144 (16 sequences of 9), prompts have thousands


class PackedWeight(Protocol):
    """What a quantized matrix [out, in] does itself, each method as the function of its name."""

    def matmul(self, x: Tensor) -> Tensor: ...

    def gate_up(self, x: Tensor) -> Tensor: ...

    def ple_gate(self, x: Tensor, ple: Tensor) -> Tensor: ...

    def head(self, x: Tensor, softcap: float | None) -> Tensor: ...

    def dequantized(self) -> Tensor: ...


Weight = Tensor | PackedWeight


def matmul(x: Tensor, weight: Weight) -> Tensor:
    """Partial sums of x [rows, in] times weight [out, in], transposed: [splits, rows, out] f32.

    The number of splits hangs on the weight's shape alone. Beyond `MAX_TILE` rows: one, in x's
    dtype.
    """
    if not isinstance(weight, Tensor):
        return weight.matmul(x)
    if not on_gpu(x) or len(x) > MAX_TILE:
        return matmul_slow(x, weight)
    from gemmarunner.kernels import linear_triton

    return linear_triton.matmul(x, weight)


def gate_up(x: Tensor, weight: Weight) -> Tensor:
    """gelu(x gate^T) * (x up^T) [rows, inner] of x [rows, in], weight [2 inner, in], gate first."""
    if not isinstance(weight, Tensor):
        return weight.gate_up(x)
    if not on_gpu(x) or len(x) > MAX_TILE:
        return gate_up_slow(x, weight)
    from gemmarunner.kernels import linear_triton

    return linear_triton.gate_up(x, weight)


def ple_gate(x: Tensor, weight: Weight, ple: Tensor) -> Tensor:
    """gelu(x weight^T) * ple of x [rows, in], weight [out, in], ple [rows, out]: [rows, out]."""
    if not isinstance(weight, Tensor):
        return weight.ple_gate(x, ple)
    if not on_gpu(x) or len(x) > MAX_TILE:
        return ple_gate_slow(x, weight, ple)
    from gemmarunner.kernels import linear_triton

    return linear_triton.ple_gate(x, weight, ple)


def head(x: Tensor, weight: Weight, softcap: float | None) -> Tensor:
    """Logits [rows, vocabulary] f32 of x [rows, in], bent into (-softcap, softcap) if given."""
    if not isinstance(weight, Tensor):
        return weight.head(x, softcap)
    if not on_gpu(x) or len(x) > MAX_TILE:
        return head_slow(x, weight, softcap)
    from gemmarunner.kernels import linear_triton

    return linear_triton.head(x, weight, softcap)


def dequantized(weight: Weight) -> Tensor:
    """The matrix [out, in] as plain numbers; a plain matrix is returned as it is."""
    return weight if isinstance(weight, Tensor) else weight.dequantized()


def matmul_slow(x: Tensor, weight: Tensor) -> Tensor:
    """The twin of `matmul`: row by row, so that here too a row hangs on nothing but itself."""
    if len(x) > MAX_TILE:
        return F.linear(x, weight)[None]
    wide = weight.float()
    return torch.stack([wide @ row for row in x.float()])[None]


def gate_up_slow(x: Tensor, weight: Tensor) -> Tensor:
    """The twin of `gate_up`."""
    gate, up = matmul_slow(x, weight)[0].chunk(2, -1)
    return (F.gelu(gate, approximate="tanh") * up).to(x.dtype)


def ple_gate_slow(x: Tensor, weight: Tensor, ple: Tensor) -> Tensor:
    """The twin of `ple_gate`."""
    gate = matmul_slow(x, weight)[0]
    return (F.gelu(gate, approximate="tanh") * ple).to(x.dtype)


def head_slow(x: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    """The twin of `head`."""
    logits = matmul_slow(x, weight)[0].float()
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
