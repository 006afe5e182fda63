"""From a projection's partial sums to normalised and rotated heads, and into the K/V cache.

RMS norm per head and rotary embedding are computed in float32. Pair j of a head is its elements
(j, j + head_dim / 2), turned by position * frequency[j]; frequency 0 leaves a pair still. Values
are normalised without a weight; where a layer has no value projection, they are the raw keys.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels.launch import launch, on_gpu
from gemmarunner.kernels.rows import Rows, row_positions, row_slots


class HeadShape(NamedTuple):
    """How the columns of a projection divide into heads: queries, then keys, then values."""

    heads: int
    kv_heads: int  # 0: queries only
    head_dim: int  # a power of two
    k_eq_v: bool  # no value columns: the raw keys serve as values

    @property
    def columns(self) -> int:
        """Columns of the projection."""
        return (self.heads + self.kv_heads * (1 if self.k_eq_v else 2)) * self.head_dim


def split_heads(
    parts: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    frequencies: Tensor,
    rows: Rows,
    *,
    eps: float,
    heads: int,
    kv_heads: int,
    head_dim: int,
    k_eq_v: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Rotated queries [R, heads, head_dim] and new keys and values [2, kv_heads, R, head_dim].

    `parts` is [S, R, columns] partial sums, f32 or the model's dtype; the weights [head_dim] f32;
    `frequencies` [head_dim / 2] f32.
    """
    shape = HeadShape(heads, kv_heads, head_dim, k_eq_v)
    if not on_gpu(parts):
        return split_heads_slow(parts, q_weight, k_weight, frequencies, rows, eps, shape, dtype)
    new = parts.new_empty((2, kv_heads, parts.shape[1], head_dim), dtype=dtype)
    # To the kernel it is a cache of one slot whose ring is the rows themselves.
    q = _launch(parts, q_weight, k_weight, frequencies, new[None], rows, eps, shape, in_ring=False)
    return q, new


def write_heads(
    parts: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    frequencies: Tensor,
    cache: Tensor,
    rows: Rows,
    *,
    eps: float,
    heads: int,
    kv_heads: int,
    head_dim: int,
    k_eq_v: bool,
    dtype: torch.dtype,
) -> Tensor:
    """As `split_heads`, but keys and values go into `cache`; returns the queries alone.

    `cache` is [slots, 2, kv_heads, ring, head_dim] of `dtype`; position p lies at index p % ring.
    """
    shape = HeadShape(heads, kv_heads, head_dim, k_eq_v)
    assert cache.dtype is dtype
    if on_gpu(parts):
        return _launch(parts, q_weight, k_weight, frequencies, cache, rows, eps, shape)
    q, new = split_heads_slow(parts, q_weight, k_weight, frequencies, rows, eps, shape, dtype)
    at = row_positions(rows) % cache.shape[3]
    cache[row_slots(rows), :, :, at] = new.permute(2, 0, 1, 3)
    return q


def rotate_queries(
    parts: Tensor,
    q_weight: Tensor,
    frequencies: Tensor,
    rows: Rows,
    *,
    eps: float,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
) -> Tensor:
    """Rotated queries [R, heads, head_dim] of a layer that has no keys of its own.

    `parts` is [S, R, heads * head_dim].
    """
    shape = HeadShape(heads, 0, head_dim, False)
    if on_gpu(parts):
        none = parts.new_empty((1, 2, 0, 1, head_dim), dtype=dtype)
        return _launch(parts, q_weight, q_weight, frequencies, none, rows, eps, shape)
    return split_heads_slow(parts, q_weight, q_weight, frequencies, rows, eps, shape, dtype)[0]


def split_heads_slow(
    parts: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    frequencies: Tensor,
    rows: Rows,
    eps: float,
    shape: HeadShape,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The slow twin of this module's operators."""
    raw = parts.float().sum(0).view(parts.shape[1], -1, shape.head_dim)
    normed = raw * (raw.square().mean(-1, keepdim=True) + eps).rsqrt()
    q, k = normed[:, : shape.heads], normed[:, shape.heads :][:, : shape.kv_heads]
    v = normed[:, normed.shape[1] - shape.kv_heads :]  # with k_eq_v the normed raw keys themselves
    angles = row_positions(rows)[:, None, None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()

    def turned(x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)

    new = torch.stack((turned(k * k_weight), v)).transpose(1, 2)
    return turned(q * q_weight).to(dtype), new.to(dtype).contiguous()


def _launch(
    parts: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    frequencies: Tensor,
    cache: Tensor,
    rows: Rows,
    eps: float,
    shape: HeadShape,
    in_ring: bool = True,
) -> Tensor:
    from gemmarunner.kernels.heads_triton import heads_kernel

    splits, count, columns = parts.shape
    assert columns == shape.columns
    assert count == rows.start.numel() * rows.per
    assert cache.stride(4) == 1
    q = parts.new_empty((count, shape.heads, shape.head_dim), dtype=cache.dtype)
    kernel: Any = heads_kernel
    launch(
        kernel,
        (columns // shape.head_dim, count),
        parts,
        q_weight,
        k_weight,
        frequencies,
        q,
        cache,
        rows.slot,
        rows.start,
        rows.per,
        cache.shape[3],
        eps,
        parts.stride(0),
        parts.stride(1),
        *cache.stride()[:4],
        SPLITS=splits,
        HEADS=shape.heads,
        KV_HEADS=shape.kv_heads,
        D=shape.head_dim,
        K_EQ_V=shape.k_eq_v,
        IN_RING=in_ring,
        num_warps=1 if shape.head_dim <= 256 else 2,
    )
    return q
