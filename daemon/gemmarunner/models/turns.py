"""The rows of one forward: which sequence's they are, where they stand and what they see."""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.attention import Span, attend


class Part(NamedTuple):
    """The rows of one sequence, in layers of one shape."""

    cache: KVCache
    span: Span


class Turn(NamedTuple):
    """All rows, one sequence's after another's, in layers of one shape."""

    cos: Tensor  # [computed rows, 1, head_dim]
    sin: Tensor  # [computed rows, 1, head_dim]
    parts: tuple[Part, ...]


class ScriptArguments(NamedTuple):
    """A turn in the words of `scripted.ScriptedLayer`."""

    cos: Tensor
    sin: Tensor
    caches: list[KVCache]  # of each sequence
    writes: list[list[int]]
    cache_of_piece: list[KVCache]
    pieces: list[list[int]]
    masks: list[Tensor]


def script_arguments(turn: Turn) -> ScriptArguments:
    """Its pieces' rows counted from the first row of all."""
    out = ScriptArguments(turn.cos, turn.sin, [], [], [], [], [])
    first = 0
    for cache, span in turn.parts:
        out.caches.append(cache)
        out.writes.append([first, span.rows, span.slot])
        for piece in span.pieces:
            out.cache_of_piece.append(cache)
            out.pieces.append([first + piece.begin, first + piece.end, piece.first, piece.keys])
            out.masks.append(piece.mask)
        first += span.rows
    return out


def attend_parts(
    heads: Tensor, query_heads: int, layer: int, donor: int | None, turn: Turn
) -> Tensor:
    """Each sequence's rows over its own cache [rows, query heads * head_dim].

    `heads` are rows of query heads and, where there is no donor, of K and V heads, which the layer
    writes to the cache first. Rows that only fill up come last and are left out.
    """
    parts = []
    first = 0
    for cache, span in turn.parts:
        mine = heads[first : first + span.rows]
        if donor is None:
            cache.write(layer, span.slot, mine[:, query_heads:])
        parts.append(attend(mine[:, :query_heads], cache, layer if donor is None else donor, span))
        first += span.rows
    return parts[0] if len(parts) == 1 else torch.cat(parts)
