"""Attention of one sequence's prompt chunk over the cache's past keys and the chunk's own."""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels.launch import launch, on_gpu
from gemmarunner.kernels.rows import Chunk

_STORED_ROWS = 8  # by one program


def attend_prompt(
    q: Tensor, new: Tensor, cache: Tensor, chunk: Chunk, window: int | None
) -> Tensor:
    """Attention outputs [N, Hq * D] of queries [N, Hq, D] at successive positions; 0 of padding.

    Keys of earlier positions are read from `cache` [slots, 2, Hkv, ring, D], before the chunk's own
    `new` [2, Hkv, N, D] are stored over them. Causal; with a window, row p sees j > p - window.
    """
    if not on_gpu(q):
        return attend_prompt_slow(q, new, cache, chunk, window)
    return attend_tiles(q, new, cache, chunk, window)


class Tiling(NamedTuple):
    """How the kernel cuts its work."""

    block_m: int  # query rows at a time
    block_n: int  # keys at a time
    block_o: int  # output elements of a head; the scores are computed anew for each block
    warps: int
    stages: int


def tiling_for(head_dim: int) -> Tiling:
    """The tiling measured best for a head size (one H200).

    An output tile of 128 x 256 fills the registers of 8 warps, so heads of 512 take two programs.
    """
    if head_dim <= 256:
        return Tiling(128, 64, head_dim, warps=8, stages=2)
    return Tiling(128, 32, 256, warps=8, stages=2)


def attend_tiles(
    q: Tensor,
    new: Tensor,
    cache: Tensor,
    chunk: Chunk,
    window: int | None,
    tiling: Tiling | None = None,
) -> Tensor:
    """`attend_prompt` by the Triton kernel."""
    from gemmarunner.kernels.prompt_attention_triton import prompt_kernel

    count, heads, width = q.shape
    how = tiling or tiling_for(width)
    assert q.is_contiguous()
    assert cache.stride()[3:] == (width, 1)
    assert new.stride()[2:] == (width, 1)
    out = q.new_empty((count, heads * width))
    launch(
        prompt_kernel,
        (-(-count // how.block_m), heads, width // min(how.block_o, width)),
        q,
        new,
        cache,
        out,
        *chunk.rows[:2],
        chunk.length,
        count,
        cache.shape[3],
        *new.stride()[:2],
        *cache.stride()[:3],
        GROUP=heads // cache.shape[2],
        D=width,
        WINDOW=window or 0,
        BLOCK_M=how.block_m,
        BLOCK_N=how.block_n,
        BLOCK_O=min(how.block_o, width),
        STAGES=how.stages,
        num_warps=how.warps,
    )
    return out


def store_prompt(new: Tensor, cache: Tensor, chunk: Chunk) -> None:
    """The last positions of `new` [2, Hkv, N, D], as many as the ring holds, are in the cache."""
    if on_gpu(new):
        store_by_kernel(new, cache, chunk)
    else:
        store_prompt_slow(new, cache, chunk)


def store_by_kernel(new: Tensor, cache: Tensor, chunk: Chunk) -> None:
    """`store_prompt` by the Triton kernel."""
    from gemmarunner.kernels.prompt_attention_triton import store_kernel

    assert new.is_contiguous()
    assert cache.stride()[3:] == (new.shape[3], 1)
    launch(
        store_kernel,
        (-(-new.shape[2] // _STORED_ROWS), 2 * new.shape[1]),
        new,
        cache,
        *chunk.rows[:2],
        chunk.length,
        new.shape[2],
        cache.shape[3],
        *cache.stride()[:3],
        HEADS=new.shape[1],
        D=new.shape[3],
        ROWS=_STORED_ROWS,
        num_warps=4,
    )


def store_prompt_slow(new: Tensor, cache: Tensor, chunk: Chunk) -> None:
    """The slow twin of `store_prompt`."""
    slot, start, count = map(int, (*chunk.rows[:2], chunk.length))
    ring, end = cache.shape[3], start + count
    first = max(start, end - ring)
    at = torch.arange(first, end, device=cache.device) % ring
    cache[slot].index_copy_(2, at, new[:, :, first - start : count])


def attend_prompt_slow(
    q: Tensor, new: Tensor, cache: Tensor, chunk: Chunk, window: int | None
) -> Tensor:
    """The slow twin of `attend_prompt`: softmax in float32 over all keys."""
    slot, start, count = map(int, (*chunk.rows[:2], chunk.length))
    out = q.new_zeros(len(q), q.shape[1] * q.shape[2])
    q, new = q[:count], new[:, :, :count]
    first = max(0, start - window + 1) if window else 0
    past = cache[slot][:, :, torch.arange(first, start, device=q.device) % cache.shape[3]]
    keys, values = torch.cat((past, new), 2).float()  # [Hkv, keys, D]
    p = torch.arange(start, start + q.shape[0], device=q.device)[:, None]
    j = torch.arange(first, start + q.shape[0], device=q.device)
    hidden = (j > p) | (j <= p - (window or start + q.shape[0]))  # [N, keys]
    grouped = q.float().view(len(q), len(keys), -1, q.shape[2])  # [N, Hkv, group, D]
    scores = torch.einsum("nhgd,hkd->hgnk", grouped, keys).masked_fill(hidden, -torch.inf)
    seen = torch.einsum("hgnk,hkd->nhgd", scores.softmax(-1), values)
    out[:count] = seen.reshape(count, -1).to(q.dtype)
    return out
