"""Products of few rows with a matrix that `quant.tiled` laid out, on a GPU.

The operations of `kernels.linear`, with the same promises: up to `MAX_TILE` rows a row's result is
the same bit for bit whatever rows run with it. More rows, other types than bf16 and other devices
unpack the matrix and multiply with the library's own product.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels import linear as dense
from gemmarunner.kernels.launch import launch, on_gpu
from gemmarunner.quant.formats import Format
from gemmarunner.quant.tiled import STEP, Tiled, unpacked_slow

MAX_TILE = dense.MAX_TILE
_WARPS = 2640  # that keep an H200's memory busy: 20 a multiprocessor


class Cut(NamedTuple):
    """How a product is cut. `splits` and `deep` order its sums, and the matrix alone fixes them."""

    splits: int  # programs that share a row's steps
    deep: int  # warps that do, in a program
    side: int = 1  # warps beside each other, in a program
    ahead: int = 2  # steps on their way
    tall: int = 1  # tiles a warp


def matmul(x: Tensor, weight: Tiled, cut: Cut | None = None) -> Tensor:
    """Partial sums [splits, R, N] f32 of x [R, K]; beyond `MAX_TILE` rows one, in x's dtype."""
    if not _packs(x):
        return dense.matmul(x, dequantized(weight, x.dtype))
    cut = cut or plan(weight, len(x), whole=False)
    steps = weight.codes.shape[1]
    splits = -(-steps // -(-steps // cut.splits))
    out = torch.empty(splits, len(x), weight.shape[0], dtype=torch.float32, device=x.device)
    return _launch(x, weight, x, out, 0, 1.0, cut)


def gate_up(x: Tensor, weight: Tiled, cut: Cut | None = None) -> Tensor:
    """gelu(x gate^T) * (x up^T) [R, N / 2] of x [R, K] and a gated matrix."""
    if not _packs(x):
        return dense.gate_up(x, dequantized(weight, x.dtype))
    out = x.new_empty(len(x), weight.shape[0] // 2)
    return _launch(x, weight, x, out, 1, 1.0, cut or plan(weight, len(x), whole=True))


def head(x: Tensor, weight: Tiled, softcap: float | None, cut: Cut | None = None) -> Tensor:
    """Logits [R, N] f32 of x [R, K], bent into (-softcap, softcap) if given."""
    if not _packs(x):
        return dense.head(x, dequantized(weight, x.dtype), softcap)
    out = torch.empty(len(x), weight.shape[0], dtype=torch.float32, device=x.device)
    operation, cap = (0, 1.0) if softcap is None else (2, softcap)
    return _launch(x, weight, x, out, operation, cap, cut or plan(weight, len(x), whole=True))


def ple_gate(x: Tensor, weight: Tiled, ple: Tensor, cut: Cut | None = None) -> Tensor:
    """gelu(x weight^T) * ple of x [R, K], ple [R, N]: [R, N] in x's dtype."""
    if not _packs(x):
        return dense.ple_gate(x, dequantized(weight, x.dtype), ple)
    out = x.new_empty(len(x), weight.shape[0])
    return _launch(
        x, weight, ple.contiguous(), out, 3, 1.0, cut or plan(weight, len(x), whole=True)
    )


def plan(weight: Tiled, rows: int, *, whole: bool) -> Cut:
    """The cut of a matrix for `rows`; whole: its sums may not be split over programs.

    Measured on an H200: see `tests.bench.quant`. A warp wants two steps or more.
    """
    tiles, steps = weight.codes.shape[:2]
    return _whole(weight, rows, tiles, steps) if whole else _split(weight, rows, tiles, steps)


def _whole(weight: Tiled, rows: int, tiles: int, steps: int) -> Cut:
    light = weight.format is Format.Q4_0
    deep = _power(min(8, steps // 2, -(-_WARPS // tiles)))
    ahead = 2 if light else 1
    if deep > 4 or rows <= 8:
        return Cut(1, deep, 1, ahead)
    if rows <= 16 or deep == 1:
        return Cut(1, deep, 1, 1, 2)
    return Cut(1, deep, 2, ahead)


def _split(weight: Tiled, rows: int, tiles: int, steps: int) -> Cut:
    if steps < 8:
        return Cut(min(steps, 2), 1)
    splits = min(8, steps // 4, -(-_WARPS // (tiles * 2)))
    few = -(-steps // splits) <= 4  # two of a warp
    if rows <= 8:
        far = 3 if weight.format is Format.Q4_0 else 2
        return Cut(splits, 2, 4) if few else Cut(splits, 2, 2, far)
    if rows <= 16:
        return Cut(splits, 2, 2, 2, 2) if few else Cut(splits, 2, 1, 1, 2)
    return Cut(splits, 2, 2, 1, 2 if few else 1)


def _power(count: int) -> int:
    """The greatest power of two up to `count`, at least 1."""
    return 1 << (max(1, count).bit_length() - 1)


def groups_of(rows: int) -> int:
    """Groups of 8 rows that a program takes: what a power of two of rows shares."""
    return 1 if rows <= 8 else 2 if rows <= 16 else 4 if rows <= 32 else 5


def _launch(
    x: Tensor, weight: Tiled, ple: Tensor, out: Tensor, operation: int, cap: float, cut: Cut
) -> Tensor:
    from gemmarunner.quant import tiled_triton

    tiles, steps = weight.codes.shape[:2]
    rows, columns = x.shape
    each = -(-steps // cut.splits)
    groups = groups_of(rows)
    launch(
        tiled_triton.product,
        (-(-tiles // (cut.tall * cut.side)), -(-steps // each), -(-rows // (8 * groups))),
        x.contiguous(), weight.codes, weight.scale.view(torch.int32), ple, out,
        rows, columns, out.shape[-1], tiles, steps, each, cap,
        OPERATION=operation, FORMAT=weight.format.value, PIECES=weight.codes.shape[2],
        TAIL=columns % STEP != 0, GROUPS=groups, TALL=cut.tall,
        SIDE=cut.side, DEEP=cut.deep, AHEAD=cut.ahead, num_warps=cut.side * cut.deep,
    )  # fmt: skip
    return out


def dequantized(weight: Tiled, dtype: torch.dtype) -> Tensor:
    """The weights [N, K] in `dtype`."""
    if on_gpu(weight.codes):
        return unpacked(weight, dtype)
    return unpacked_slow(weight).to(dtype)


def unpacked(weight: Tiled, dtype: torch.dtype) -> Tensor:
    """The same by one kernel."""
    out = torch.empty(weight.shape, dtype=dtype, device=weight.codes.device)
    unpack_into(out, weight.codes, weight.scale, gated=weight.gated)
    return out


def unpack_into(out: Tensor, codes: Tensor, scale: Tensor, *, gated: bool) -> None:
    """`out` [.., N, K] holds the weights of as many matrices as `codes` and `scale` do."""
    from gemmarunner.quant import tiled_unpack_triton

    tiles, steps, pieces = codes.shape[-5:-2]
    count = codes.numel() // (tiles * steps * pieces * 128)
    launch(
        tiled_unpack_triton.unpack, (tiles * count, steps), codes, scale, out,
        *out.shape[-2:], tiles, steps, PIECES=pieces, GATED=gated, num_warps=4,
    )  # fmt: skip


def _packs(x: Tensor) -> bool:
    return on_gpu(x) and x.dtype is torch.bfloat16 and len(x) <= MAX_TILE
