"""Random short texts for tiny targets, and caches that hold one of them."""

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.target import Target


def new_cache(target: Target) -> KVCache:
    """Room for 256 positions, of which 128 may come at once."""
    return KVCache(target.config, 256, 128, target.device, target.dtype)


def ids(count: int, seed: int) -> Tensor:
    """Tokens [count] int64 that every tiny vocabulary has."""
    return torch.randint(0, 128, (count,), generator=torch.Generator().manual_seed(seed))
