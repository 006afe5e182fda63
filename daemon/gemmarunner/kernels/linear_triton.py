"""Triton kernel of `linear`: a tile of the weight times all rows, in one pass over the weight.

The weight's tile is the left operand [block_n, block_k] and the rows, transposed, the right one
[block_k, tile]. So weights fill the tensor core whole and few rows waste little: from 64 weight
rows on this is Hopper's `wgmma.m64nXk16`, whose X is the row tile, 16 to 128. An output element is
the sum over k in steps of 16, in ascending order, in one f32 accumulator, whatever X is, so a row
has the same bits in every tile; only `splits` cuts that sum, and the weight's shape fixes it.
Weights smaller than 64 rows still take 64 (the rest repeats the last row and is not stored).

While the kernel before still runs, each program loads its last tiles of weights into registers, so
that memory is busy when the rows arrive. The last, because the loop over the others can then start
its own loads without waiting for any product, and the order of the sum stays ascending.

`ple_gate` has so few weights that its latency is all: see `narrow`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels import linear_plan
from gemmarunner.kernels.launch import launch
from gemmarunner.kernels.linear_plan import Plan, held_tiles, plan, row_tile

_NARROW = 4  # weight rows of a program of `narrow`, each a warp's
_COLUMNS = 512  # that it takes at a time

PARTS = tl.constexpr(0)
GATE_UP = tl.constexpr(1)
SOFTCAP = tl.constexpr(2)


@triton.jit
def gelu(x):  # type: ignore[no-untyped-def]
    """gelu in its tanh form: x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))."""
    return x / (1.0 + tl.exp(-1.5957691216057308 * x * (1.0 + 0.044715 * x * x)))


@triton.jit
def tanh(x):  # type: ignore[no-untyped-def]
    """The hyperbolic tangent, to 1e-7 absolute."""
    return 1.0 - 2.0 / (1.0 + tl.exp(2.0 * x))


@triton.jit  # type: ignore[untyped-decorator]
def kept(x, PDL: tl.constexpr):  # type: ignore[no-untyped-def]
    """`x`; what is done with it cannot move to before this place, as the compiler likes to."""
    if PDL:
        x = tl.inline_asm_elementwise(
            "mov.b32 $0, $1;",
            "=r,r",
            [x],
            dtype=x.dtype,
            is_pure=False,
            pack=32 // x.dtype.primitive_bitwidth,
        )
    return x


@triton.jit(do_not_specialize=["rows", "splits"])  # type: ignore[untyped-decorator]
def product(  # type: ignore[no-untyped-def]
    x,  # [rows, k]
    weight,  # [n, k]; of GATE_UP [2 n, k], of which a program takes the same rows of both halves
    out,  # [splits, rows, n]
    rows,
    n,
    k,
    splits,
    cap,
    OPERATION: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    HELD: tl.constexpr,  # tiles of every program to load before its rows are there
    LOOP: tl.constexpr,  # some program has more tiles
    PDL: tl.constexpr,
):
    COLUMNS: tl.constexpr = BLOCK_N // 2 if OPERATION == GATE_UP else BLOCK_N
    slab = tl.arange(0, BLOCK_N)
    row = tl.minimum(tl.program_id(0) * COLUMNS + slab % COLUMNS, n - 1)
    row = (row + slab // COLUMNS * n).to(tl.int64)
    steps = tl.cdiv(k, BLOCK_K)
    first = tl.program_id(1) * steps // splits
    last = (tl.program_id(1) + 1) * steps // splits
    column = tl.arange(0, BLOCK_K)
    lane = tl.arange(0, TILE)
    weights = weight + (row * k)[:, None] + column[None, :]
    inputs = x + (lane * k)[:, None] + column[None, :]
    total = tl.zeros((BLOCK_N, TILE), tl.float32)
    live = (lane < rows)[:, None]
    if PDL:
        gdc_launch_dependents()
    held = ()
    for step in tl.static_range(HELD):
        held = held + (tl.load(weights + (last - HELD + step) * BLOCK_K),)  # type: ignore[assignment]  # noqa: RUF005
    if PDL:
        gdc_wait()
    values = ()
    if TILE <= 32:  # more rows would not fit into registers
        for step in tl.static_range(HELD):
            at = (last - HELD + step) * BLOCK_K
            values = values + (tl.load(inputs + at, mask=live, other=0.0),)  # type: ignore[assignment]  # noqa: RUF005
    if LOOP:
        for step in range(first, last - HELD):
            at = step * BLOCK_K
            if EVEN_K:
                w = tl.load(weights + at)
                value = tl.load(inputs + at, mask=live, other=0.0)
            else:
                inside = (column + at < k)[None, :]
                w = tl.load(weights + at, mask=inside, other=0.0)
                value = tl.load(inputs + at, mask=live & inside, other=0.0)
            total = tl.dot(w, value.T, total, "ieee")
    for step in tl.static_range(HELD):
        if TILE <= 32:
            value = kept(values[step], PDL)
        else:
            value = tl.load(inputs + (last - HELD + step) * BLOCK_K, mask=live, other=0.0)
        total = tl.dot(kept(held[step], PDL), value.T, total, "ieee")
    place = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    stored = (place < n)[:, None] & (lane < rows)[None, :]
    cell = place[:, None] + lane[None, :] * n
    if OPERATION == GATE_UP:
        gate, up = total.reshape(2, COLUMNS, TILE).permute(1, 2, 0).split()
        total = gelu(gate) * up
    elif OPERATION == SOFTCAP:
        total = cap * tanh(total / cap)
    cell += tl.program_id(1) * rows * n
    tl.store(out + cell, total.to(out.dtype.element_ty), mask=stored)


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def narrow(  # type: ignore[no-untyped-def]
    x,  # [rows, k]
    weight,  # [n, k]
    ple,  # [rows, n]
    out,  # [rows, n]
    rows,
    n,
    k,
    STEPS: tl.constexpr,
    EACH: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """gelu(x weight^T) * ple, EACH rows and BLOCK_N weight rows a program, one row after another.

    All weights are held from before the rows are there. A warp sums a weight row alone, so nothing
    passes through shared memory; a row's sum has one order whatever EACH is.
    """
    if PDL:
        gdc_launch_dependents()
    place = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_K)[None, :]
    weights = weight + (tl.minimum(place, n - 1) * k)[:, None] + column
    held = ()
    for step in tl.static_range(STEPS):
        at = step * BLOCK_K
        if EVEN_K:
            held = held + (tl.load(weights + at),)  # type: ignore[assignment]  # noqa: RUF005
        else:
            held = held + (tl.load(weights + at, mask=column + at < k, other=0.0),)  # type: ignore[assignment]  # noqa: RUF005
    if PDL:
        gdc_wait()
    inputs = x + (place * 0)[:, None] + column  # every warp reads a row for itself
    for index in tl.static_range(EACH):
        row = tl.program_id(1) * EACH + index
        live = row < rows
        total = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
        for step in tl.static_range(STEPS):
            seen = live & (column + step * BLOCK_K < k)
            value = tl.load(inputs + row * k + step * BLOCK_K, mask=seen, other=0.0)
            total += kept(held[step], PDL).to(tl.float32) * value.to(tl.float32)
        cell, stored = row * n + place, live & (place < n)
        factor = tl.load(ple + cell, mask=stored, other=0.0).to(tl.float32)
        gated = gelu(tl.sum(total, 1)) * factor
        tl.store(out + cell, gated.to(out.dtype.element_ty), mask=stored)


def matmul(x: Tensor, weight: Tensor, cut: Plan | None = None) -> Tensor:
    """See `linear.matmul`; `cut` replaces the plan of the weight's shape."""
    n, k = weight.shape
    cut = cut or plan(n, k, row_tile(len(x)), whole=False)
    out = x.new_empty((cut.splits, len(x), n), dtype=torch.float32)
    return _run(PARTS, x, weight, out, cut)


def gate_up(x: Tensor, weight: Tensor, cut: Plan | None = None) -> Tensor:
    """See `linear.gate_up`."""
    twice, k = weight.shape
    cut = cut or plan(twice, k, row_tile(len(x)), whole=True)
    return _run(GATE_UP, x, weight, x.new_empty((len(x), twice // 2)), cut)


def ple_gate(x: Tensor, weight: Tensor, ple: Tensor) -> Tensor:
    """See `linear.ple_gate`."""
    (rows, k), n = x.shape, len(weight)
    out = x.new_empty((rows, n))
    each = 1 if rows <= 8 else 4
    launch(
        narrow,
        (triton.cdiv(n, _NARROW), triton.cdiv(rows, each)),
        x.contiguous(),
        weight,
        ple.contiguous(),
        out,
        rows,
        n,
        k,
        STEPS=triton.cdiv(k, _COLUMNS),
        EACH=each,
        BLOCK_N=_NARROW,
        BLOCK_K=_COLUMNS,
        EVEN_K=k % _COLUMNS == 0,
        num_warps=_NARROW,
    )
    return out


def head(x: Tensor, weight: Tensor, softcap: float | None, cut: Plan | None = None) -> Tensor:
    """See `linear.head`."""
    n, k = weight.shape
    cut = cut or plan(n, k, row_tile(len(x)), whole=True)
    out = x.new_empty((len(x), n), dtype=torch.float32)
    if softcap is None:
        return _run(PARTS, x, weight, out, cut)
    return _run(SOFTCAP, x, weight, out, cut, cap=softcap)


def _run(
    operation: Any, x: Tensor, weight: Tensor, out: Tensor, cut: Plan, cap: float = 1.0
) -> Tensor:
    rows, k = x.shape
    n = out.shape[-1]
    slabs = triton.cdiv(n, cut.block_n // (2 if operation is GATE_UP else 1))
    even = k % cut.block_k == 0
    most = getattr(linear_plan.tuning.held, _kind(operation, weight))
    held, loop = held_tiles(k, row_tile(rows), cut, most)
    launch(
        product,
        (slabs, cut.splits),
        x.contiguous(),
        weight,
        out,
        rows,
        n,
        k,
        cut.splits,
        cap,
        OPERATION=operation,
        TILE=row_tile(rows),
        BLOCK_N=cut.block_n,
        BLOCK_K=cut.block_k,
        EVEN_K=even,
        HELD=held,
        LOOP=loop,
        num_warps=cut.warps,
        num_stages=cut.stages,
    )
    return out


def _kind(operation: Any, weight: Tensor) -> str:
    """What `Held` calls a product."""
    if operation is PARTS:
        return "down" if weight.shape[1] > 2 * len(weight) else "matmul"
    return "gate_up" if operation is GATE_UP else "head"
