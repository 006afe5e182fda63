"""A Gemma 4 target's text stack: tokens in, final hidden rows and logits out."""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.attention import Span, attend
from gemmarunner.models.config import LayerConfig, TargetConfig
from gemmarunner.models.embedding import Embedding, PerLayerEmbedding
from gemmarunner.models.layers import Layer
from gemmarunner.models.linear import EXACT_ROWS, even_rows, make_linear
from gemmarunner.models.masks import SeparateMasks, common_piece
from gemmarunner.models.norm import make_norm
from gemmarunner.models.rope import RopeTable
from gemmarunner.models.weights import Take, under


class SoftRows(NamedTuple):
    """Image or audio embeddings that stand in for rows of one forward."""

    rows: Tensor  # [soft] int64, indices into the forward's rows
    embeddings: Tensor  # [soft, hidden], not scaled
    blocks: Tensor  # [rows] int64, the image a row belongs to, -1: none


class Target:
    """A target's weights, and the pass over rows of one sequence."""

    def __init__(
        self, config: TargetConfig, take: Take, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.config = config
        self.device = device
        self.dtype = dtype
        hidden, layers = config.hidden, config.layers
        table = take("embed_tokens.weight", (config.vocab_size, hidden), stored=True)
        self.embedding = Embedding(table, hidden, dtype)
        self._head = make_linear(table.to(dtype))
        self._ple = (
            PerLayerEmbedding(
                config.vocab_size, len(layers), config.ple_dim, hidden, config.eps, take
            )
            if config.ple_dim
            else None
        )
        self._layers = [
            Layer(
                layer,
                hidden=hidden,
                heads=config.heads,
                eps=config.eps,
                take=under(take, f"layers.{index}."),
                owns_kv=layer.donor is None,
                ple_dim=config.ple_dim,
                moe=config.moe,
            )
            for index, layer in enumerate(layers)
        ]
        self._norm = make_norm(take("norm.weight", (hidden,)), config.eps)
        self._like = torch.empty(0, device=device, dtype=dtype)
        self._shapes, self._shape_of_layer = _distinct_shapes(layers)
        self._ropes = [RopeTable(s.rope, s.head_dim, device, dtype) for s in self._shapes]
        self._masks = [SeparateMasks(self._window(s), device, dtype) for s in self._shapes]

    @torch.inference_mode()
    def forward(
        self,
        tokens: Tensor,
        cache: KVCache,
        keep: int | None = None,
        soft: SoftRows | None = None,
    ) -> Tensor:
        """Runs `tokens` [rows] int64 at the positions from `cache.length` on.

        Afterwards their K/V are in the cache and committed. Returns the hidden rows after the final
        norm of the last `keep` rows (None: all), [keep, hidden]. The other rows skip the layers
        that write no K/V. Up to `EXACT_ROWS` rows, all kept, without experts, on an x86 CPU in
        float32: each row is the same bit for bit as if it had been run alone.
        """
        rows = tokens.shape[0]
        cache.make_room(rows)
        kept = rows if keep is None else min(keep, rows)
        if kept == rows:
            tokens = _filled(tokens, self._computed(rows))
        x, ple = self._embed(tokens, soft)
        spans = self._spans(cache, cache.length, rows, tokens.shape[0], soft)
        first_shared, layers = self.config.first_shared, len(self._layers)
        x = self._run(0, first_shared, x, ple, spans, cache)
        if kept < rows:
            x = x[-kept:]
            ple = [of_layer[-kept:] for of_layer in ple]
        if kept < rows and first_shared < layers:
            spans = self._spans(cache, cache.length + rows - kept, kept, kept, None)
        x = self._run(first_shared, layers, x, ple, spans, cache)
        cache.length += rows
        return self._norm(x)[:kept]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [rows, vocabulary] float32 of final hidden rows, softcapped."""
        rows = hidden.shape[0]
        logits = self._head(_filled(hidden, self._computed(rows)))[:rows].float()
        cap = self.config.softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)

    @torch.inference_mode()
    def embed_for_draft(self, tokens: Tensor) -> Tensor:
        """Scaled embedding rows [n, hidden] of tokens [n] int64, as a drafter reads them."""
        return self.embedding(tokens)

    def _computed(self, rows: int) -> int:
        """How many rows to compute for the result of `rows` not to depend on their number."""
        exact = self.device.type == "cpu" and self.dtype is torch.float32
        return even_rows(rows) if exact else rows

    def _embed(self, tokens: Tensor, soft: SoftRows | None) -> tuple[Tensor, list[Tensor]]:
        """Embedding rows [rows, hidden] and, per layer, the rows' per-layer embedding."""
        if soft is not None:  # a placeholder's own id means nothing; the table has a row for pad
            tokens = tokens.index_fill(0, soft.rows, self.config.pad_id)
        x = self.embedding(tokens)
        if soft is not None:
            x.index_copy_(0, soft.rows, soft.embeddings.to(x.dtype))
        return x, list(self._ple(tokens, x)) if self._ple is not None else []

    def _spans(
        self, cache: KVCache, start: int, rows: int, computed: int, soft: SoftRows | None
    ) -> list[Span]:
        """For each distinct layer shape, where `rows` rows from position `start` on stand."""
        spans = []
        for shape, rope, masks in zip(self._shapes, self._ropes, self._masks, strict=True):
            base = cache.sliding_base if shape.kind == "sliding" else 0
            if rows <= EXACT_ROWS and soft is None:
                pieces = masks.pieces(start, rows, base)
            else:
                images = soft is not None and self.config.bidirectional_images
                blocks = soft.blocks if images and soft and shape.kind == "sliding" else None
                pieces = common_piece(start, rows, self._window(shape), base, self._like, blocks)
            cos, sin = rope.rows(start, start + computed)
            spans.append(Span(cos, sin, cache.length - base, rows, pieces))
        return spans

    def _window(self, layer: LayerConfig) -> int | None:
        return self.config.window if layer.kind == "sliding" else None

    def _run(
        self,
        begin: int,
        end: int,
        x: Tensor,
        ple: list[Tensor],
        spans: list[Span],
        cache: KVCache,
    ) -> Tensor:
        """Rows through layers begin..end-1; those that own K/V write them to the cache."""
        computed = x.shape[0]
        for index in range(begin, end):
            layer = self._layers[index]
            span = spans[self._shape_of_layer[index]]
            donor = self.config.layers[index].donor
            heads = layer.project(layer.input_norm(x), span.cos, span.sin)
            if computed > span.rows:
                heads = heads[: span.rows]
            if donor is None:
                donor = index
                cache.write(index, span.slot, heads[:, layer.heads :])
                heads = heads[:, : layer.heads]
            attended = _filled(attend(heads, cache, donor, span), computed)
            x = layer.finish(x, attended, ple[index] if ple else None)
        return x


def _filled(rows: Tensor, count: int) -> Tensor:
    """The rows, the last one repeated until there are `count`."""
    missing = count - rows.shape[0]
    if missing == 0:
        return rows
    shape = (missing, *rows.shape[1:])
    return torch.cat((rows, rows[-1:].expand(shape)))


def _distinct_shapes(layers: tuple[LayerConfig, ...]) -> tuple[list[LayerConfig], list[int]]:
    """One layer for each distinct geometry, and for each layer the index of its own."""
    seen: dict[tuple[object, ...], int] = {}
    shapes: list[LayerConfig] = []
    index_of: list[int] = []
    for layer in layers:
        key = (layer.kind, layer.head_dim, layer.kv_heads, layer.rope)
        if key not in seen:
            seen[key] = len(shapes)
            shapes.append(layer)
        index_of.append(seen[key])
    return shapes, index_of
