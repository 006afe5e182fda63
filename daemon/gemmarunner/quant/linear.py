"""Products of rows with a packed matrix, kept packed while there are few rows.

The operations of `kernels.linear`, with the same promises: up to `MAX_TILE` rows a row's result is
the same bit for bit whatever rows run with it. More rows unpack the matrix once and multiply with
the library's own product. Without a GPU the matrix is unpacked for each call: a twin for tests, not
a way to run (see `quant.cpu`).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels import linear as dense
from gemmarunner.kernels.launch import launch, on_gpu
from gemmarunner.quant.formats import Format, Packed
from gemmarunner.quant.planes import Planes

MAX_TILE = dense.MAX_TILE


class Tiling(NamedTuple):
    """How a product is cut. `splits` and `warps` order its sums: the matrix's shape fixes them."""

    rows: int  # of the matrix, a program
    splits: int  # of a row, as near as whole steps allow
    warps: int  # a program; each sums steps of its own
    stages: int = 3
    columns: int = 8  # rows of activations a program


def tiling(packed: Packed, whole: bool, count: int = 1) -> Tiling:
    """The cut of `packed` for `count` rows; whole: rows may not be split.

    Some 20 warps keep a multiprocessor busy: that many steps should be on their way at a time.
    """
    tiles, steps = -(-packed.shape[0] // 16), step_count(packed)
    warps, splits = (_warps(tiles, steps), 1) if whole else _splits(tiles, steps)
    if count <= 8:
        return Tiling(16, splits, warps, 3, 8)
    # 32 columns of many warps' steps are more than a multiprocessor's shared memory holds
    columns = 16 if count <= 16 or warps >= 8 else 32
    return Tiling(16, splits, warps, 2, columns)


def _warps(tiles: int, steps: int) -> int:
    warps = 1
    while warps < min(16, steps) and tiles * warps < 2**11:
        warps *= 2
    return warps


def _splits(tiles: int, steps: int) -> tuple[int, int]:
    """Warps and splits, so that each warp has some steps and as many as the others."""
    warps = 4 if steps >= 16 else 2 if steps >= 2 else 1
    splits = max(1, min(8, steps // warps, -(-3072 // (tiles * warps))))
    each = -(-steps // (splits * warps)) * warps
    return warps, -(-steps // each)


def step_count(packed: Packed) -> int:
    """Steps of words that one row has."""
    return int(packed.planes.codes.shape[1]) // packed.block


def matmul(x: Tensor, packed: Packed, cut: Tiling | None = None) -> Tensor:
    """Partial sums [splits, R, N] f32 of x [R, K]; beyond `MAX_TILE` rows one, in x's dtype."""
    if not _packs(x):
        return dense.matmul(x, dequantized(packed, x.dtype))
    return _multiply(x, packed, cut or tiling(packed, False, len(x)), torch.float32)


def gate_up(x: Tensor, packed: Packed, cut: Tiling | None = None) -> Tensor:
    """gelu(x gate^T) * (x up^T) [R, N / 2] of x [R, K], packed [N, K], gate rows first."""
    if not _packs(x):
        return dense.gate_up(x, dequantized(packed, x.dtype))
    from gemmarunner.quant import linear_triton

    cut = cut or tiling(packed, True, len(x))
    out = x.new_empty(x.shape[0], packed.shape[0] // 2)
    grid = (-(-out.shape[1] * 2 // cut.rows), -(-x.shape[0] // cut.columns))
    _launch(linear_triton.gated_product, grid, x, packed, cut, [out], [])
    return out


def ple_gate(x: Tensor, packed: Packed, ple: Tensor, cut: Tiling | None = None) -> Tensor:
    """gelu(x packed^T) * ple of x [R, K], ple [R, N]: [R, N] in x's dtype."""
    if not _packs(x):
        return dense.ple_gate(x, dequantized(packed, x.dtype), ple)
    cut = cut or tiling(packed, True, len(x))
    return _multiply(x, packed, cut, x.dtype, ple=ple.contiguous())[0]


def head(x: Tensor, packed: Packed, softcap: float | None, cut: Tiling | None = None) -> Tensor:
    """Logits [R, N] f32 of x [R, K], bent into (-softcap, softcap) if given."""
    if not _packs(x):
        return dense.head(x, dequantized(packed, x.dtype), softcap)
    cut = cut or tiling(packed, True, len(x))
    return _multiply(x, packed, cut, torch.float32, softcap=softcap)[0]


def dequantized(packed: Packed, dtype: torch.dtype) -> Tensor:
    """The weights [N, K] in `dtype`."""
    if not on_gpu(packed.planes.codes):
        return packed.dequantized(dtype)
    return unpacked(packed, dtype)


def unpacked(packed: Packed, dtype: torch.dtype) -> Tensor:
    """As `Packed.dequantized`, by one kernel."""
    from gemmarunner.quant import linear_triton

    out = torch.empty(packed.shape, dtype=dtype, device=packed.device)
    grid = (-(-packed.shape[0] // 16), step_count(packed))
    launch(
        linear_triton.unpack, grid, *_planes(packed), out, packed.shape[1], packed.shape[0],
        packed.planes.codes.shape[1], FORMAT=packed.format.value, BLOCK=packed.block,
        FIELDS=_fields(packed), BN=16, FAST=_fast(), num_warps=4,
    )  # fmt: skip
    return out


def _multiply(
    x: Tensor,
    packed: Packed,
    cut: Tiling,
    dtype: torch.dtype,
    ple: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    from gemmarunner.quant import linear_triton

    each = -(-step_count(packed) // cut.splits)
    splits = -(-step_count(packed) // each)
    out = torch.empty(splits, x.shape[0], packed.shape[0], dtype=dtype, device=x.device)
    grid = (-(-packed.shape[0] // cut.rows), splits, -(-x.shape[0] // cut.columns))
    rest: list[object] = [each, 1.0 if softcap is None else softcap]
    bent = softcap is not None
    _launch(
        linear_triton.product, grid, x, packed, cut, [ple, out], rest, SOFTCAP=bent
    )  # fmt: skip
    return out


def _launch(
    kernel: Any,
    grid: tuple[int, ...],
    x: Tensor,
    packed: Packed,
    cut: Tiling,
    tensors: list[Tensor | None],
    rest: list[object],
    **meta: object,
) -> None:
    rows, columns = packed.shape
    assert x.shape[1] == columns
    step = packed.block * _fields(packed)
    launch(
        kernel, grid, x.contiguous(), *_planes(packed), *tensors, x.shape[0], columns, rows,
        packed.planes.codes.shape[1], step_count(packed), *rest,
        FORMAT=packed.format.value, BLOCK=packed.block, FIELDS=_fields(packed),
        TAIL=columns % step != 0, FAST=x.dtype is torch.bfloat16 and _fast(), BN=cut.rows,
        WARPS=cut.warps, ROWS=cut.columns, num_warps=cut.warps, num_stages=cut.stages, **meta,
    )  # fmt: skip


def _planes(packed: Packed) -> tuple[Tensor | None, ...]:
    """In the order of the kernels' arguments."""
    planes: Planes = packed.planes
    return (
        planes.codes, planes.scale, planes.high,
        planes.minimum, planes.super_scale, planes.super_minimum,
    )  # fmt: skip


def _fields(packed: Packed) -> int:
    """Blocks in a step."""
    return 4 if packed.format is Format.Q8_0 else 8


def _packs(x: Tensor) -> bool:
    return on_gpu(x) and x.shape[0] <= MAX_TILE


def _fast() -> bool:
    """Whether the PTX can be used: Triton's interpreter has none."""
    from triton import knobs

    return not knobs.runtime.interpret
