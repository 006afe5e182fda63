"""Where the drafter's head starts: clusters of like tokens and a low-rank embedding."""

import torch
from torch import Tensor


def balanced_ordering(embedding: Tensor, clusters: int) -> Tensor:
    """Return the tokens ordered so that equal consecutive runs are `clusters` clusters [vocab] i64.

    Each group is halved at the median of its first principal direction, until there are enough.
    """
    groups = torch.arange(len(embedding), device=embedding.device)[None]
    while len(groups) < clusters:
        members = embedding[groups].float()
        members = members - members.mean(dim=1, keepdim=True)
        direction = torch.linalg.eigh(members.mT @ members).eigenvectors[..., -1]
        order = (members @ direction[..., None])[..., 0].argsort(dim=1)
        groups = groups.gather(1, order).reshape(2 * len(groups), -1)
    return groups.flatten()


def principal_embedding(embedding: Tensor, width: int) -> Tensor:
    """Return the embedding's best `width`-dimensional stand-in, [vocab, width] f32."""
    left, scale, _ = torch.linalg.svd(embedding.float(), full_matrices=False)
    found: Tensor = left[:, :width] * scale[:width]
    return found
