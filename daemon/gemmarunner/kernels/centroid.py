"""The drafter's head over clusters of tokens: scores only those whose centroids match best."""

import torch
from torch import Tensor

from gemmarunner.kernels.launch import on_gpu


def centroid_logits(
    normed: Tensor, centroids: Tensor, clusters: Tensor, ids: Tensor, top_k: int
) -> tuple[Tensor, Tensor]:
    """Logits [B, top_k * M] f32 and token ids (int64) of the best clusters, best cluster first.

    `normed` [B, h], `centroids` [C, h], `clusters` [C, M, h] the head's rows in cluster order,
    `ids` [C, M] int64 their tokens. Among equal centroids the lower index comes first.
    """
    if not on_gpu(normed):
        return centroid_logits_slow(normed, centroids, clusters, ids, top_k)
    from gemmarunner.kernels.centroid_triton import launch_centroid_logits

    return launch_centroid_logits(normed, centroids, clusters, ids, top_k)


def centroid_logits_slow(
    normed: Tensor, centroids: Tensor, clusters: Tensor, ids: Tensor, top_k: int
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    x = normed.float()
    best = (x @ centroids.float().t()).sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    logits = torch.einsum("bkmh,bh->bkm", clusters[best].float(), x)
    return logits.flatten(1), ids[best].flatten(1)
