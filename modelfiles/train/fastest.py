"""Finds the fastest way to train that works here: compiled with block masks, or plainer ways."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.attention import Masks, block_masks, dense_masks
from train.model import Target, softcapped

AGREEMENT = (0.02, 0.1)  # how far loss and gradient norm may be from the plain way's, relative


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run the target's layers and the losses."""

    name: str
    compiled: bool
    blocks: bool

    def masks(self, documents: Tensor, window: int) -> Masks:
        """Return the masks that this way attends with."""
        return block_masks(documents, window) if self.blocks else dense_masks(documents, window)

    def ready(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, compiled if this way compiles."""
        return torch.compile(function, dynamic=False) if self.compiled else function


PLAIN = Way("plain", compiled=False, blocks=False)
WAYS = (
    Way("compiled with block masks", compiled=True, blocks=True),
    Way("compiled with dense masks", compiled=True, blocks=False),
    PLAIN,
)


def prepare_compiler() -> None:
    """Allow one compiled version for each kind of layer, and for training and inference."""
    config: Any = torch._dynamo.config
    for name in ("cache_size_limit", "recompile_limit"):  # the same limit, before and since 2.7
        if hasattr(config, name):
            setattr(config, name, 64)


def set_compiled(layers: nn.ModuleList, compiled: bool) -> None:
    """Compile each layer in place, so that equal layers share one compilation, or undo it."""
    for layer in layers:
        if compiled:
            layer.compile(dynamic=False)
        else:
            layer._compiled_call_impl = None


def token_losses(hidden: Tensor, embedding: Tensor, targets: Tensor, cap: float) -> Tensor:
    """Return the cross entropy f32 of every target; `hidden` has their shape and one more."""
    raw = F.linear(hidden, embedding.to(hidden.dtype)).float()
    logits = softcapped(raw, cap).flatten(0, -2)
    return F.cross_entropy(logits, targets.flatten(), reduction="none").view(targets.shape)


def fastest_way(
    model: Target, attempt: Callable[[Way], Tensor], allowed: tuple[Way, ...] = WAYS
) -> Way:
    """Return the first of the ways that runs and agrees with the plain one.

    `attempt` does a forward and a backward pass in the given way and returns [2] the loss and the
    gradients' norm; what went wrong with a way is printed, because a lent device is too dear to
    stop for it.
    """
    if allowed[0] is PLAIN:
        return PLAIN
    plain = attempt(PLAIN).tolist()
    model.zero_grad(set_to_none=True)
    for way in allowed:
        if way is PLAIN:
            break
        begun = time.perf_counter()
        try:
            prepare_compiler()
            set_compiled(model.model.layers, True)
            found = attempt(way).tolist()
        except Exception:  # whatever the compiler raises, a plainer way can still train
            print(f"Training {way.name} failed; trying a plainer way:", flush=True)
            traceback.print_exc()
        else:
            took = time.perf_counter() - begun
            print(f"{way.name}: {took:.1f} s, {found} (plain {plain})", flush=True)
            if agree(found, plain):
                return way
            print("It disagrees with the plain way; trying a plainer one.", flush=True)
        finally:
            model.zero_grad(set_to_none=True)
    set_compiled(model.model.layers, False)
    return PLAIN


def agree(found: list[float], plain: list[float]) -> bool:
    """Return whether loss and gradient norm are as near as rounding explains."""
    pairs = zip(found, plain, AGREEMENT, strict=True)
    return all(abs(a - b) <= share * abs(b) for a, b, share in pairs)
