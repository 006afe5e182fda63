"""Matrices one under the other, each packed in its own way, as one weight.

Files mix formats: of one layer the queries may be Q4_K and the values Q6_K, which are one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gemmarunner.kernels.linear import matmul
from gemmarunner.quant.formats import FileBlocks, Packed
from gemmarunner.quant.planes import Planes


@dataclass(frozen=True, slots=True)
class Stacked:
    """Rows of `parts` [N_i, K] in their order; a `kernels.linear.PackedWeight`."""

    parts: tuple[Tensor | Packed, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    def to(self, device: torch.device | str) -> "Stacked":
        """The same on `device`."""
        return Stacked(tuple(part.to(device) for part in self.parts))

    def dequantized(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """The weights [N, K] in `dtype`."""
        plain = [p.to(dtype) if isinstance(p, Tensor) else p.dequantized(dtype) for p in self.parts]
        return torch.cat(plain)

    def matmul(self, x: Tensor) -> Tensor:
        """The product [1, R, N] f32 of x [R, K]: partial sums of parts differ in number."""
        return torch.cat([matmul(x, part).float().sum(0, keepdim=True) for part in self.parts], 2)

    def gate_up(self, x: Tensor) -> Tensor:
        """gelu(x gate^T) * (x up^T) [R, N / 2], gate first."""
        gate, up = self.matmul(x)[0].chunk(2, -1)
        return (F.gelu(gate, approximate="tanh") * up).to(x.dtype)

    def ple_gate(self, x: Tensor, ple: Tensor) -> Tensor:
        """gelu(x weight^T) * ple [R, N]."""
        return (F.gelu(self.matmul(x)[0], approximate="tanh") * ple).to(x.dtype)

    def head(self, x: Tensor, softcap: float | None) -> Tensor:
        """Logits [R, N] f32, bent into (-softcap, softcap) if given."""
        logits = self.matmul(x)[0]
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def stacked(parts: Sequence[Tensor | Packed | Stacked]) -> Tensor | Packed | Stacked:
    """`parts` [N_i, K] one under the other: one matrix where all are stored alike."""
    if len(parts) == 1:
        return parts[0]
    flat = [one for part in parts for one in (part.parts if isinstance(part, Stacked) else (part,))]
    plain = [part for part in flat if isinstance(part, Tensor)]
    packed = [part for part in flat if isinstance(part, Packed)]
    if not packed:
        return torch.cat(plain)
    if not plain and len({part.format for part in packed}) == 1:
        return joined(packed)
    return Stacked(tuple(flat))


def joined(parts: Sequence[Packed]) -> Packed:
    """The rows of `parts`, all of one format and width, as one matrix."""
    if len(parts) == 1:
        return parts[0]
    rows = sum(part.shape[0] for part in parts)
    blocks = [part.blocks for part in parts if isinstance(part, FileBlocks)]
    if len(blocks) == len(parts):
        return FileBlocks(parts[0].format, (rows, parts[0].shape[1]), torch.cat(blocks))
    planes = []
    for index, name in enumerate(Planes._fields):
        found = [part.planes[index] for part in parts]
        across = 0 if name in ("codes", "high") else 1
        one = [plane for plane in found if plane is not None]
        planes.append(torch.cat(one, across) if one else None)
    return Packed(parts[0].format, (rows, parts[0].shape[1]), Planes(*planes))  # type: ignore[arg-type]
