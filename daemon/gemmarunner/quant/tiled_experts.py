"""A layer's experts kept packed, of which a step reads only those that its rows chose."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemmarunner.kernels.experts import FEW_ROWS, experts_grouped, experts_slow
from gemmarunner.kernels.launch import launch, on_gpu, only_builds
from gemmarunner.quant.formats import Format, Packed
from gemmarunner.quant.tiled import STEP, Tiled, tiled
from gemmarunner.quant.tiled_linear import unpack_into

_BY_PAIR_ROWS = 16  # up to here a program stands for a pair, else for an expert


@dataclass(frozen=True, slots=True)
class TiledExperts:
    """Matrices [E, N, K] of one format, each laid out as `Tiled`."""

    format: Format
    shape: tuple[int, int, int]
    codes: Tensor  # [E, tiles, steps, pieces, 32, 4] int32
    scale: Tensor  # [E, tiles, steps, 8, 4, 2] float16
    gated: bool

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.codes.nbytes + self.scale.nbytes

    def of(self, expert: int) -> Tiled:
        """One expert's matrix."""
        codes, scale = self.codes[expert], self.scale[expert]
        return Tiled(self.format, self.shape[1:], codes, scale, self.gated)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weights [E, N, K] in `dtype`."""
        if not on_gpu(self.codes):
            return torch.stack([self.of(e).dequantized(dtype) for e in range(self.shape[0])])
        out = torch.empty(self.shape, dtype=dtype, device=self.codes.device)
        unpack_into(out, self.codes, self.scale, gated=self.gated)
        return out

    def experts(self, x: Tensor, down: "TiledExperts", shares: Tensor, chosen: Tensor) -> Tensor:
        """See `kernels.experts.experts`; this is gate and up."""
        return experts(x, self, down, shares, chosen)


def tiled_experts(matrices: Sequence[Packed], *, gated: bool = False) -> TiledExperts:
    """`matrices` [N, K], all of one format, laid out anew; gated: gate's rows above up's."""
    laid = [tiled(matrix, gated=gated) for matrix in matrices]
    first = matrices[0]
    shape = (len(matrices), *first.shape)
    codes = torch.stack([one.codes for one in laid])
    scale = torch.stack([one.scale for one in laid])
    return TiledExperts(first.format, shape, codes, scale, gated)


def experts(
    x: Tensor, gate_up: TiledExperts, down: TiledExperts, shares: Tensor, chosen: Tensor
) -> Tensor:
    """Each row's weighted sum over its experts, as partial sums [S, R, H] f32: S = top_k or 1."""
    few = len(x) <= FEW_ROWS
    if on_gpu(x) and x.dtype is torch.bfloat16 and few:
        return _launched(x, gate_up, down, shares, chosen)
    if only_builds():
        return x.new_empty((1, *x.shape), dtype=torch.float32)
    compute = experts_slow if few else experts_grouped
    return compute(x, gate_up.dequantized(x.dtype), down.dequantized(x.dtype), shares, chosen)


def _launched(
    x: Tensor, gate_up: TiledExperts, down: TiledExperts, shares: Tensor, chosen: Tensor
) -> Tensor:
    rows, top_k = chosen.shape
    width, units = down.shape[1:]
    hidden = x.new_empty(rows * top_k, units)
    out = torch.empty(top_k, rows, width, dtype=torch.float32, device=x.device)
    _routed(x, gate_up, shares, chosen, hidden)
    _routed(hidden, down, shares, chosen, out)
    return out


def _routed(x: Tensor, weight: TiledExperts, shares: Tensor, chosen: Tensor, out: Tensor) -> None:
    import triton

    from gemmarunner.quant.tiled_experts_triton import routed

    rows, top_k = chosen.shape
    tiles, steps = weight.codes.shape[1:3]
    by_pair = rows <= _BY_PAIR_ROWS
    deep = 4 if steps >= 16 else 2 if steps >= 4 else 1
    side = 1 if deep == 4 else 2
    launch(
        routed,
        (-(-tiles // side), rows * top_k if by_pair else weight.shape[0]),
        x.contiguous(), weight.codes, weight.scale.view(torch.int32), chosen, shares, out,
        rows * top_k, x.shape[1], out.shape[-1], tiles, steps,
        DOWN=not weight.gated, FORMAT=weight.format.value, PIECES=weight.codes.shape[3],
        TAIL=x.shape[1] % STEP != 0, SIDE=side, DEEP=deep, AHEAD=2, TOP_K=top_k,
        PAIRS=max(16, triton.next_power_of_2(rows * top_k)), BY_PAIR=by_pair,
        num_warps=side * deep,
    )  # fmt: skip
