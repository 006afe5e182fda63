"""Triton kernels of `norm`: one program a row, in registers from first load to last store.

Latency is all: weights are loaded while the kernel before still runs, partial sums all at once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.launch import launch

Branches = tuple[Tensor, Tensor, Tensor, Tensor]  # the fields of `norm.Experts`


@triton.jit
def scaled(x, weight, width, eps):  # type: ignore[no-untyped-def]
    """`x` over its root mean square, times `weight`; lanes beyond `width` hold zeros."""
    return x * tl.rsqrt(tl.sum(x * x, 0) / width + eps) * weight


@triton.jit
def both_sum(a, b, c, d):  # type: ignore[no-untyped-def]
    """Adds two pairs of numbers."""
    return a + c, b + d


@triton.jit  # type: ignore[untyped-decorator]
def summed(parts, at, live, stride, SPLITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sum of `SPLITS` partial sums, in ascending order; all are loaded before any is added."""
    loaded = ()
    for split in tl.static_range(SPLITS):
        loaded = loaded + (tl.load(parts + split * stride + at, mask=live, other=0.0),)  # type: ignore[assignment]  # noqa: RUF005
    total = loaded[0].to(tl.float32)  # type: ignore[misc]
    for split in tl.static_range(1, SPLITS):
        total += loaded[split].to(tl.float32)
    return total


@triton.jit
def weights_of(weight, lane, live):  # type: ignore[no-untyped-def]
    """A norm's weights; zeros in place of a weight that is not there."""
    if weight is None:
        return tl.zeros_like(lane).to(tl.float32)
    else:  # noqa: RET505 - a constexpr branch
        return tl.load(weight + lane, mask=live, other=0.0)


@triton.jit
def store_next(out, weight, values, residual, at, live, factor):  # type: ignore[no-untyped-def]
    """Store what one of the next blocks reads, if there is such a block."""
    if out is not None:
        if weight is None:
            tl.store(out + at, residual.to(out.dtype.element_ty), mask=live)
        else:
            tl.store(out + at, (residual * factor * values).to(out.dtype.element_ty), mask=live)


@triton.jit  # type: ignore[untyped-decorator]
def norm_kernel(  # type: ignore[no-untyped-def]
    x, weight, out, width, eps, BLOCK: tl.constexpr, PDL: tl.constexpr
):
    if PDL:
        gdc_launch_dependents()
    lane = tl.arange(0, BLOCK)
    live = lane < width
    values = tl.load(weight + lane, mask=live, other=0.0)
    if PDL:
        gdc_wait()
    at = tl.program_id(0) * width + lane
    row = tl.load(x + at, mask=live, other=0.0).to(tl.float32)
    tl.store(out + at, scaled(row, values, width, eps).to(out.dtype.element_ty), mask=live)


@triton.jit  # type: ignore[untyped-decorator]
def add_norm_kernel(  # type: ignore[no-untyped-def]
    x,  # [rows, width] f32
    parts,  # [splits, rows, width]
    parts_b,  # [splits_b, rows, width] of the routed experts, or None
    weight_a,  # [width], the norm of `parts`; None without experts
    weight_b,  # [width], the norm of `parts_b`
    post,  # [width]
    residual,  # [rows, width] f32
    next_a,  # [width] or None
    next_b,
    next_c,
    out_a,  # [rows, width] or None
    out_b,
    out_c,
    width,
    eps,
    scale,
    SPLITS: tl.constexpr,
    SPLITS_B: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    lane = tl.arange(0, BLOCK)
    live = lane < width
    after = tl.load(post + lane, mask=live, other=0.0)
    dense = weights_of(weight_a, lane, live)
    routed = weights_of(weight_b, lane, live)
    values_a = weights_of(next_a, lane, live)
    values_b = weights_of(next_b, lane, live)
    values_c = weights_of(next_c, lane, live)
    if PDL:
        gdc_wait()
    at = tl.program_id(0) * width + lane
    stride = tl.num_programs(0) * width  # which the compiler knows to be a multiple of width's 16
    row = tl.load(x + at, mask=live, other=0.0)
    total = summed(parts, at, live, stride, SPLITS)
    if parts_b is not None:
        other = summed(parts_b, at, live, stride, SPLITS_B)
        square, square_b = tl.reduce((total * total, other * other), 0, both_sum)
        total = total * tl.rsqrt(square / width + eps) * dense
        total += other * tl.rsqrt(square_b / width + eps) * routed
    row = (row + scaled(total, after, width, eps)) * scale
    mean = tl.sum(row * row, 0) / width
    factor = tl.rsqrt(mean + eps)
    tl.store(residual + at, row, mask=live)
    store_next(out_a, next_a, values_a, row, at, live, factor)
    store_next(out_b, next_b, values_b, row, at, live, factor)
    store_next(out_c, next_c, values_c, row, at, live, factor)


def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """See `norm.norm`."""
    rows, width = x.shape
    out = torch.empty((rows, width), dtype=dtype, device=x.device)
    block, warps = _block(width)
    args = (x.contiguous(), weight, out, width, eps)
    launch(norm_kernel, (rows,), *args, BLOCK=block, num_warps=warps)
    return out


def add_norm(
    x: Tensor,
    parts: Tensor,
    post: Tensor,
    eps: float,
    scale: float,
    nexts: tuple[Tensor | None, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """See `norm.add_norm`."""
    return _add(x, parts, None, post, eps, scale, nexts, dtype)


def add_experts_norm(
    x: Tensor,
    branches: Branches,
    post: Tensor,
    eps: float,
    scale: float,
    nexts: tuple[Tensor | None, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """See `norm.add_experts_norm`."""
    return _add(x, branches[0], branches, post, eps, scale, nexts, dtype)


def _add(
    x: Tensor,
    parts: Tensor,
    branches: Branches | None,
    post: Tensor,
    eps: float,
    scale: float,
    nexts: tuple[Tensor | None, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    rows, width = x.shape
    residual = torch.empty((rows, width), dtype=torch.float32, device=x.device)
    outs = tuple(torch.empty((rows, width), dtype=dtype, device=x.device) for _ in nexts)
    missing = (None,) * (3 - len(nexts))
    block, warps = _block(width)
    launch(
        add_norm_kernel,
        (rows,),
        x.contiguous(),
        parts.contiguous(),
        branches and branches[1].contiguous(),
        branches and branches[2],
        branches and branches[3],
        post,
        residual,
        *(*nexts, *missing),
        *(*outs, *missing),
        width,
        eps,
        scale,
        SPLITS=len(parts),
        SPLITS_B=len(branches[1]) if branches else 0,
        BLOCK=block,
        num_warps=warps,
    )
    return residual, outs


def _block(width: int) -> tuple[int, int]:
    """Lanes (a power of two) and warps of a row: 8 elements a thread, two loads of 16 bytes."""
    block = max(64, triton.next_power_of_2(width))
    return block, min(16, max(2, block // 256))
