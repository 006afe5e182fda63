"""Grouped-query attention of one layer over contiguous keys and values.

Few rows (decoding, verifying): each row is a product of its own over keys from one multiple of
`kvcache.ALIGNED` to another, chosen by its position alone. So its result is the same bit for bit
whatever other rows stand beside it. Many rows (prefill): all at once.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gemmarunner.engine.kvcache import KeysValues, KVCache
from gemmarunner.models.config import LayerConfig
from gemmarunner.models.linear import MakeLinear
from gemmarunner.models.norm import make_norm
from gemmarunner.models.weights import Take, take_matrix


class Piece(NamedTuple):
    """Successive rows that see the same keys."""

    begin: int  # first row
    end: int  # one past the last row
    first: int  # slot of the first key
    keys: int  # number of keys
    mask: Tensor  # additive; [rows, 1, 1, keys] where each row stands alone, else [rows, keys]


class Span(NamedTuple):
    """Where one sequence's rows stand in its cache, and what they see in layers of one shape."""

    slot: int  # first row's slot
    rows: int
    pieces: tuple[Piece, ...]  # none where the native library runs the rows
    start: int  # first row's position
    base: int  # position in slot 0
    window: int | None

    def first_seen(self, row: int) -> int:
        """The first slot that a row sees."""
        if self.window is None:
            return 0
        return max(0, self.start + row - self.window + 1) - self.base

    def seen_end(self, row: int) -> int:
        """One past the last slot that a row sees: its own."""
        return self.start + row + 1 - self.base


class Projection:
    """From normalised rows to rotated queries, keys and values."""

    def __init__(
        self,
        layer: LayerConfig,
        hidden: int,
        heads: int,
        eps: float,
        take: Take,
        *,
        owns_kv: bool,
        linear: MakeLinear,
    ) -> None:
        width, kv_heads = layer.head_dim, layer.kv_heads
        self.heads = heads
        self.half = width // 2
        self.rotated = heads + kv_heads if owns_kv else heads
        self.k_eq_v = layer.k_eq_v and owns_kv
        parts = [("self_attn.q_proj.weight", (heads * width, hidden))]
        scales = [take("self_attn.q_norm.weight", (width,)).expand(heads, width)]
        if owns_kv:
            names = ("k",) if layer.k_eq_v else ("k", "v")
            shape = (kv_heads * width, hidden)
            parts += [(f"self_attn.{name}_proj.weight", shape) for name in names]
            scales.append(take("self_attn.k_norm.weight", (width,)).expand(kv_heads, width))
            scales.append(torch.ones_like(scales[-1]))  # values are normalised without a weight
        self.multiply = linear(take_matrix(take, *parts))
        self.norm = make_norm(torch.cat(scales), eps)
        self.shape = (-1, sum(rows for _, (rows, _) in parts) // width, width)

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[rows, query heads (+ key heads + value heads), head_dim] of x [rows, hidden]."""
        raw = self.multiply(x).view(self.shape)
        if self.k_eq_v:  # the raw key projection serves twice
            raw = torch.cat((raw, raw[:, self.heads :]), 1)
        heads = self.norm(raw)
        turning = heads[:, : self.rotated]
        turned = turning.roll(self.half, -1).mul_(sin)
        turning.mul_(cos).add_(turned)
        return heads


def attend(queries: Tensor, cache: KVCache, donor: int, span: Span) -> Tensor:
    """Attention outputs of rows over the cache, heads side by side: [rows, heads * head_dim].

    `queries` is [rows, heads, head_dim].
    """
    parts = []
    for piece in span.pieces:
        seen = cache.read(donor, piece.first, piece.keys)
        rows = queries if len(span.pieces) == 1 else queries[piece.begin : piece.end]
        together = piece.mask.ndim == 2
        parts.append((_all_rows if together else each_row)(rows, seen, piece.mask))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def each_row(queries: Tensor, seen: KeysValues, mask: Tensor | None) -> Tensor:
    """Rows one by one, in one call; the query heads of a K/V head are one product."""
    rows, heads, width = queries.shape
    keys, values = seen
    kv_heads = keys.shape[1]
    folded = queries.view(rows, kv_heads, heads // kv_heads, width)
    if rows > 1:
        keys, values = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
    out = F.scaled_dot_product_attention(folded, keys, values, mask, scale=1.0)
    return out.reshape(rows, heads * width)


def _all_rows(queries: Tensor, seen: KeysValues, mask: Tensor) -> Tensor:
    rows, heads, width = queries.shape
    out = F.scaled_dot_product_attention(
        queries.transpose(0, 1).unsqueeze(0), *seen, mask, scale=1.0, enable_gqa=True
    )
    return out.transpose(1, 2).reshape(rows, heads * width)
