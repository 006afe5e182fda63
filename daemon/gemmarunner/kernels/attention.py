"""Attention of a step's few rows over the cache, cut at absolute positions of the text.

A row's keys are cut into pieces whose bounds depend on the cache alone; each piece is a product of
its own and the pieces are combined in ascending order. So a row's result is the same bit for bit
whatever other rows and sequences stand beside it (flash decoding with fixed cuts).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels.launch import launch, on_gpu
from gemmarunner.kernels.rows import Rows, row_positions

_MULTIPROCESSORS = 132  # of an H100 or H200; fewer or more cost some speed only


def chunk_for(capacity: int) -> int:
    """The shortest piece of keys, for a cache that holds `capacity` positions.

    The same for all: without a window, pieces grow along the text anyhow, see `piece_count`.
    """
    assert capacity > 0
    return 64


def attend(
    q: Tensor, cache: Tensor, rows: Rows, *, window: int | None, lag: int, chunk: int
) -> Tensor:
    """Attention outputs [R, Hq * D] of queries [R, Hq, D] over `cache` [slots, 2, Hkv, ring, D].

    The row at position p sees the keys j <= p - lag and, with a window, j > p - lag - window. The
    scale is 1. Rows of padding sequences that see no key give finite numbers without a meaning.
    """
    assert cache.shape[3] % 64 == 0
    if not on_gpu(q):
        return attend_slow(q, cache, rows, window=window, lag=lag)
    return attend_pieces(q, cache, rows, window=window, lag=lag, chunk=chunk)


class Tiling(NamedTuple):
    """How the kernels cut their work; of these, `block_n` and those of the combination are part of
    a result's last bits, so they may depend on the shape alone, never on the number of rows.
    """

    block_n: int  # keys at a time
    warps: int
    stages: int
    crowd: int = 4  # programs wanted on each multiprocessor
    tile: int = 16  # pieces combined at a time
    block_d: int = 128  # elements of a head that a program combines
    combine_warps: int = 4


class Partials(NamedTuple):
    """What each row makes of each piece of keys, counted from its sequence's first piece."""

    outputs: Tensor  # [R, Hq, pieces, D] f32, unnormalised
    peaks: Tensor  # [R, Hq, pieces] f32, highest score, base 2
    sums: Tensor  # [R, Hq, pieces] f32, sum of weights


def tiling_for(head_dim: int, window: int | None) -> Tiling:
    """The tiling for a shape."""
    tile = 16 if window else 32
    if head_dim <= 256:
        return Tiling(block_n=64, warps=8, stages=2, tile=tile)
    return Tiling(block_n=32, warps=8, stages=3, tile=tile)


def attend_pieces(
    q: Tensor,
    cache: Tensor,
    rows: Rows,
    *,
    window: int | None,
    lag: int,
    chunk: int,
    tiling: Tiling | None = None,
) -> Tensor:
    """`attend` by the Triton kernels."""
    how = tiling or tiling_for(q.shape[2], window)
    partials = make_partials(q, cache, rows, window=window, lag=lag, chunk=chunk, how=how)
    return combine(partials, rows, q.dtype, window=window, lag=lag, chunk=chunk, how=how)


def make_partials(
    q: Tensor,
    cache: Tensor,
    rows: Rows,
    *,
    window: int | None,
    lag: int,
    chunk: int,
    how: Tiling,
) -> Partials:
    """Each row's product with each piece of its keys; pieces that it cannot see are left out."""
    from gemmarunner.kernels.attention_triton import pieces_kernel

    count, heads, width = q.shape
    _, _, kv_heads, ring, _ = cache.shape
    assert cache.stride()[3:] == (width, 1)
    assert q.is_contiguous()
    group, sequences = heads // kv_heads, count // rows.per
    block_m = 16 if rows.per * group <= 16 else 32
    tiles = -(-rows.per * group // block_m)
    most = piece_count(ring, window, rows.per, chunk)
    workers = max(1, min(most, how.crowd * _MULTIPROCESSORS // (tiles * kv_heads * sequences)))
    outputs = q.new_empty((count, heads, most, width), dtype=torch.float32)
    peaks, sums = q.new_empty((2, count, heads, most), dtype=torch.float32)
    launch(
        pieces_kernel,
        (tiles * workers, kv_heads, sequences),
        *(q, cache, rows.slot, rows.start, outputs, peaks, sums),
        *(rows.per, lag, ring, most, tiles, workers),
        *cache.stride()[:3],
        GROUP=group,
        D=width,
        WINDOW=window or 0,
        CHUNK=chunk,
        BLOCK_M=block_m,
        BLOCK_N=min(how.block_n, chunk),
        STAGES=how.stages,
        num_warps=how.warps,
    )
    return Partials(outputs, peaks, sums)


def combine(
    partials: Partials,
    rows: Rows,
    dtype: torch.dtype,
    *,
    window: int | None,
    lag: int,
    chunk: int,
    how: Tiling,
) -> Tensor:
    """The rows' outputs [R, Hq * D] of `dtype`."""
    from gemmarunner.kernels.attention_triton import combine_kernel

    count, heads, most, width = partials.outputs.shape
    block_d = min(how.block_d, width)
    out = partials.outputs.new_empty((count, heads * width), dtype=dtype)
    launch(
        combine_kernel,
        (heads, width // block_d, count),
        *partials,
        *(rows.start, out, rows.per, lag, most, heads),
        D=width,
        WINDOW=window or 0,
        CHUNK=chunk,
        TILE=how.tile,
        BLOCK_D=block_d,
        num_warps=how.combine_warps,
    )
    return out


def piece_count(ring: int, window: int | None, per: int, chunk: int) -> int:
    """The most pieces that the rows of one sequence can see; see `piece_of` for their bounds."""
    if window:
        return (min(window + per, ring) - 2) // chunk + 2
    short = -(-ring // chunk)
    return min(short, 32) + min(max(0, -(-(short - 32) // 4)), 56) + max(0, -(-(short - 256) // 8))


def attend_slow(q: Tensor, cache: Tensor, rows: Rows, *, window: int | None, lag: int) -> Tensor:
    """The slow twin of `attend`: softmax in float32 over the whole ring."""
    ring, kv_heads = cache.shape[3], cache.shape[2]
    newest = row_positions(rows).view(-1, rows.per, 1) - lag
    age = (newest - torch.arange(ring, device=q.device)) % ring  # [B, P, ring]
    visible = (age <= newest) & (age < (window or ring))
    grouped = q.float().view(*newest.shape[:2], kv_heads, -1, q.shape[2])  # [B, P, Hkv, group, D]
    keys, values = cache[rows.slot.long()].float().unbind(1)  # [B, Hkv, ring, D]
    scores = torch.einsum("bphgd,bhkd->bphgk", grouped, keys)
    scores = scores.masked_fill(~visible[:, :, None, None], -1e30)
    out = torch.einsum("bphgk,bhkd->bphgd", scores.softmax(-1), values)
    return out.reshape(q.shape[0], -1).to(q.dtype)
