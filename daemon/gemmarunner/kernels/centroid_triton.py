"""Triton kernels of `centroid_logits`: score every centroid, then read the best clusters alone."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.launch import launch
from gemmarunner.kernels.ordered_triton import packed, unpacked_index

_CENTROIDS = 16  # a program
_TOKENS = 32  # a program


def launch_centroid_logits(
    normed: Tensor, centroids: Tensor, clusters: Tensor, ids: Tensor, top_k: int
) -> tuple[Tensor, Tensor]:
    """See `centroid.centroid_logits`.

    Two launches. Each program of the second finds the best clusters again, from all scores: that
    takes less time than a third launch.
    """
    batch, width = normed.shape
    count, size = ids.shape
    scores = torch.empty(batch, count, dtype=torch.float32, device=normed.device)
    block = triton.next_power_of_2(width)
    launch(
        _scores,
        (triton.cdiv(count, _CENTROIDS), batch),
        *(normed, centroids, scores, count),
        WIDTH=width,
        BLOCK=block,
        TILE=_CENTROIDS,
        num_warps=2,
    )
    logits = torch.empty(batch, top_k * size, dtype=torch.float32, device=normed.device)
    tokens = torch.empty(batch, top_k * size, dtype=torch.int64, device=normed.device)
    tile = min(_TOKENS, triton.next_power_of_2(size))
    launch(
        _logits,
        (triton.cdiv(size, tile), top_k, batch),
        *(normed, scores, clusters, ids, logits, tokens, count, size, top_k),
        WIDTH=width,
        BLOCK=block,
        TILE=tile,
        COUNT=triton.next_power_of_2(count),
        BEST=triton.next_power_of_2(top_k),
        num_warps=4,
    )
    return logits, tokens


@triton.jit  # type: ignore[untyped-decorator]
def _scores(  # type: ignore[no-untyped-def]
    normed,
    centroids,
    scores,
    count,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    lane = tl.arange(0, BLOCK)
    centroid = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = (centroid < count)[:, None] & (lane < WIDTH)[None, :]
    weights = tl.load(
        centroids + centroid[:, None] * WIDTH + lane[None, :], mask=inside, other=0.0
    ).to(tl.float32)
    if PDL:
        gdc_wait()
    row = tl.program_id(1)
    x = tl.load(normed + row * WIDTH + lane, mask=lane < WIDTH, other=0.0).to(tl.float32)
    total = tl.sum(weights * x[None, :], 1)
    tl.store(scores + row * count + centroid, total, mask=centroid < count)


@triton.jit  # type: ignore[untyped-decorator]
def _logits(  # type: ignore[no-untyped-def]
    normed,
    scores,
    clusters,
    ids,
    logits,
    tokens,
    count,
    size,
    top_k,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    COUNT: tl.constexpr,
    BEST: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    rank, row = tl.program_id(1), tl.program_id(2)
    lane = tl.arange(0, BLOCK)
    x = tl.load(normed + row * WIDTH + lane, mask=lane < WIDTH, other=0.0).to(tl.float32)
    every = tl.arange(0, COUNT)
    score = tl.load(scores + row * count + every, mask=every < count, other=-float("inf"))
    best = tl.topk(packed(score, every), BEST)
    chosen = tl.max(tl.where(tl.arange(0, BEST) == rank, best, -(1 << 63)), 0)
    cluster = unpacked_index(chosen).to(tl.int64)
    member = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = member < size
    token = tl.load(ids + cluster * size + member, mask=inside)
    at = (cluster * size + member)[:, None] * WIDTH + lane[None, :]
    weights = tl.load(clusters + at, mask=inside[:, None] & (lane < WIDTH)[None, :], other=0.0)
    total = tl.sum(weights.to(tl.float32) * x[None, :], 1)
    out = (row * top_k + rank) * size + member
    tl.store(logits + out, total, mask=inside)
    tl.store(tokens + out, token, mask=inside)
