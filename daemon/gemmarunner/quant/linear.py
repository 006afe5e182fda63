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
    """How a product is cut. `splits` orders its sums, and the matrix's shape alone fixes it."""

    splits: int  # of a row, as near as whole steps allow
    columns: int = 16  # rows of activations a program: 16, 32 or 64
    stages: int = 3  # steps of words on their way
    rows: int = 64  # of the matrix, a program of four warps


def tiling(packed: Packed, whole: bool, count: int = 1) -> Tiling:
    """The cut of `packed` for `count` rows; whole: rows may not be split.

    Some three programs a multiprocessor keep its memory busy.
    """
    tiles, steps = -(-packed.shape[0] // 64), step_count(packed)
    splits = 1 if whole else max(1, min(8, steps, -(-396 // tiles)))
    splits = -(-steps // -(-steps // splits))  # none is empty
    if count <= 16:
        return Tiling(splits, 16, 4 if packed.format is Format.Q8_0 else 3)
    return Tiling(splits, 32) if count <= 32 else Tiling(splits, 64, 2)


def _narrow_warps(packed: Packed) -> int:
    """Warps that share the steps of 16 rows: as many as have one, up to 16."""
    return int(min(16, 2 ** (step_count(packed).bit_length() - 1)))


def step_count(packed: Packed) -> int:
    """Steps of words that one row has."""
    return int(packed.planes.codes.shape[1]) // packed.block


def matmul(x: Tensor, packed: Packed, cut: Tiling | None = None) -> Tensor:
    """Partial sums [splits, R, N] f32 of x [R, K]; beyond `MAX_TILE` rows one, in x's dtype."""
    if not _packs(x):
        return dense.matmul(x, dequantized(packed, x.dtype))
    return _multiply(x, packed, cut or tiling(packed, False, len(x)))


def gate_up(x: Tensor, packed: Packed, cut: Tiling | None = None) -> Tensor:
    """gelu(x gate^T) * (x up^T) [R, N / 2] of x [R, K], packed [N, K], gate rows first."""
    if not _packs(x):
        return dense.gate_up(x, dequantized(packed, x.dtype))
    from gemmarunner.quant import linear_triton

    cut = cut or tiling(packed, True, len(x))
    out = x.new_empty(x.shape[0], packed.shape[0] // 2)
    grid = (-(-out.shape[1] * 2 // cut.rows), -(-x.shape[0] // cut.columns))
    _launch(linear_triton.gated_product, grid, x, packed, [out], [], **_cut(cut))
    return out


def ple_gate(x: Tensor, packed: Packed, ple: Tensor) -> Tensor:
    """gelu(x packed^T) * ple of x [R, K], ple [R, N]: [R, N] in x's dtype."""
    if not _packs(x):
        return dense.ple_gate(x, dequantized(packed, x.dtype), ple)
    from gemmarunner.quant import narrow_triton

    out = x.new_empty(x.shape[0], packed.shape[0])
    warps = _narrow_warps(packed)
    columns = 8 if len(x) <= 8 else 16
    grid = (-(-out.shape[1] // 16), -(-len(x) // columns))
    tensors = [ple.contiguous(), out]
    _launch(
        narrow_triton.narrow, grid, x, packed, tensors, [],
        BN=16, ROWS=columns, WARPS=warps, num_warps=warps, num_stages=2,
    )  # fmt: skip
    return out


def head(x: Tensor, packed: Packed, softcap: float | None, cut: Tiling | None = None) -> Tensor:
    """Logits [R, N] f32 of x [R, K], bent into (-softcap, softcap) if given."""
    if not _packs(x):
        return dense.head(x, dequantized(packed, x.dtype), softcap)
    cut = cut or tiling(packed, True, len(x))
    return _multiply(x, packed, cut, softcap)[0]


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
    softcap: float | None = None,
) -> Tensor:
    from gemmarunner.quant import linear_triton

    each = -(-step_count(packed) // cut.splits)
    splits = -(-step_count(packed) // each)
    out = torch.empty(splits, x.shape[0], packed.shape[0], dtype=torch.float32, device=x.device)
    grid = (-(-packed.shape[0] // cut.rows), splits, -(-x.shape[0] // cut.columns))
    rest: list[object] = [each, 1.0 if softcap is None else softcap]
    bent = softcap is not None
    _launch(
        linear_triton.product, grid, x, packed, [out], rest, SOFTCAP=bent, **_cut(cut)
    )  # fmt: skip
    return out


def _launch(
    kernel: Any,
    grid: tuple[int, ...],
    x: Tensor,
    packed: Packed,
    tensors: list[Tensor],
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
        TAIL=columns % step != 0, FAST=x.dtype is torch.bfloat16 and _fast(), **meta,
    )  # fmt: skip


def _cut(cut: Tiling) -> dict[str, object]:
    return {"BN": cut.rows, "ROWS": cut.columns, "num_warps": 4, "num_stages": cut.stages}


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
