"""A Gemma 4 target's text stack: tokens in, final hidden rows and logits out."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.attention import Span
from gemmarunner.models.config import LayerConfig, TargetConfig
from gemmarunner.models.embedding import Embedding, PerLayerEmbedding
from gemmarunner.models.layers import Layer
from gemmarunner.models.linear import EXACT_ROWS, FEW_ROWS, MakeLinear, even_rows, make_linear
from gemmarunner.models.masks import SeparateMasks, common_piece
from gemmarunner.models.native import native_layers, run_native
from gemmarunner.models.norm import make_norm
from gemmarunner.models.rope import RopeTable
from gemmarunner.models.scripted import script_layers
from gemmarunner.models.split import Split, layer_devices, moved, stretches, taking_to
from gemmarunner.models.turns import Part, ScriptArguments, Turn, attend_parts, script_arguments
from gemmarunner.models.weights import Take, take_head, take_table, under


class SoftRows(NamedTuple):
    """Image or audio embeddings that stand in for rows of one forward."""

    rows: Tensor  # [soft] int64, indices into the forward's rows
    embeddings: Tensor  # [soft, hidden], not scaled
    blocks: Tensor  # [rows] int64, the image a row belongs to, -1: none


class Target:
    """A target's weights, and the pass over rows of one sequence."""

    def __init__(
        self,
        config: TargetConfig,
        take: Take,
        device: torch.device,
        dtype: torch.dtype,
        *,
        linear: MakeLinear = make_linear,
        head: MakeLinear = make_linear,
        split: Split = (),
    ) -> None:
        """`linear` and `head` make the big matrices' products: packed, if they are quantized.

        `split`: layers are on these devices, all else beside the last ones; see `split.py`.
        """
        self.config = config
        self.layer_devices = layer_devices(split, config, device)
        self.device = device
        self.dtype = dtype
        hidden, layers = config.hidden, config.layers
        shape = (config.vocab_size, hidden)
        table = take_table(take, "embed_tokens.weight", shape)
        self.embedding = Embedding(table, hidden, dtype)
        self._head = head(take_head(take, table, shape, dtype))
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
                take=self._taking(under(take, f"layers.{index}."), index),
                owns_kv=layer.donor is None,
                linear=linear,
                ple_dim=config.ple_dim,
                moe=config.moe,
            )
            for index, layer in enumerate(layers)
        ]
        self._norm = make_norm(take("norm.weight", (hidden,)), config.eps)
        self._like = torch.empty(0, device=device, dtype=dtype)
        self._shapes, self._shape_of_layer = _distinct_shapes(layers)
        kv_heads = [layer.kv_heads for layer in layers]
        self._donors = [
            index if layer.donor is None else layer.donor for index, layer in enumerate(layers)
        ]
        # Both run all layers in one memory.
        self._native = (
            None if split else native_layers(self._layers, kv_heads, self._shape_of_layer)
        )
        self._scripted = [] if self._native or split else script_layers(self._layers, kv_heads)
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
        that write no K/V. Up to `EXACT_ROWS` rows, all kept, on an x86 CPU in float32 (experts: in
        native layers): each row is the same bit for bit as if it had been run alone.
        """
        rows = tokens.shape[0]
        cache.make_room(rows)
        kept = rows if keep is None else min(keep, rows)
        if kept == rows:
            tokens = _filled(tokens, self._computed(rows))
        x, ple = self._embed(tokens, soft)
        turns = self._turns(cache, cache.length, rows, tokens.shape[0], soft)
        first_shared, layers = self.config.first_shared, len(self._layers)
        x = self._run(0, first_shared, x, ple, turns)
        if kept < rows:
            x = x[-kept:]
            ple = None if ple is None else ple[-kept:]
        if kept < rows and first_shared < layers:
            turns = self._turns(cache, cache.length + rows - kept, kept, kept, None)
        x = self._run(first_shared, layers, x, ple, turns)
        cache.length += rows
        return self._norm(x)[:kept]

    @torch.inference_mode()
    def forward_many(self, tokens: Sequence[Tensor], caches: Sequence[KVCache]) -> list[Tensor]:
        """`forward` of several sequences, whose matrices are read once for all of their rows.

        `tokens` are [rows] int64 for each cache; returns all of its hidden rows [rows, hidden].
        Where `forward` promises that rows don't depend on their number, neither do they here:
        up to `EXACT_ROWS` rows of each sequence and `FEW_ROWS` in all. More are run in groups.
        """
        counts = [part.shape[0] for part in tokens]
        results: list[Tensor] = []
        for begin, end in _groups(counts):
            if end - begin == 1:
                results.append(self.forward(tokens[begin], caches[begin]))
            else:
                results += self._together(tokens[begin:end], caches[begin:end], counts[begin:end])
        return results

    def _together(
        self, tokens: Sequence[Tensor], caches: Sequence[KVCache], counts: list[int]
    ) -> list[Tensor]:
        computed = self._computed(sum(counts))
        x, ple = self._embed(_filled(torch.cat(tuple(tokens)), computed), None)
        for rows, cache in zip(counts, caches, strict=True):
            cache.make_room(rows)
        turns = self._common_turns(caches, counts, computed)
        x = self._run(0, len(self._layers), x, ple, turns)
        for rows, cache in zip(counts, caches, strict=True):
            cache.length += rows
        return list(torch.split(self._norm(x)[: sum(counts)], counts))

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

    def _embed(self, tokens: Tensor, soft: SoftRows | None) -> tuple[Tensor, Tensor | None]:
        """Embedding rows [rows, hidden] and per-layer embeddings [rows, layers, ple_dim]."""
        if soft is not None:  # a placeholder's own id means nothing; the table has a row for pad
            tokens = tokens.index_fill(0, soft.rows, self.config.pad_id)
        x = self.embedding(tokens)
        if soft is not None:
            x.index_copy_(0, soft.rows, soft.embeddings.to(x.dtype))
        return x, self._ple(tokens, x) if self._ple is not None else None

    def _turns(
        self, cache: KVCache, start: int, rows: int, computed: int, soft: SoftRows | None
    ) -> list[Turn]:
        """For each distinct layer shape, `rows` rows of one sequence from position `start` on."""
        turns = []
        for at, rope in enumerate(self._ropes):
            cos, sin = rope.rows(start, start + computed)
            turns.append(Turn(cos, sin, (Part(cache, self._span(at, cache, start, rows, soft)),)))
        return turns

    def _common_turns(
        self, caches: Sequence[KVCache], counts: list[int], computed: int
    ) -> list[Turn]:
        """For each distinct layer shape, few rows of each of several sequences."""
        turns = []
        sequences = list(zip(caches, counts, strict=True))
        for at, rope in enumerate(self._ropes):
            angles = [rope.rows(cache.length, cache.length + rows) for cache, rows in sequences]
            cos, sin = (_filled(torch.cat(parts), computed) for parts in zip(*angles, strict=True))
            parts = [Part(c, self._span(at, c, c.length, rows, None)) for c, rows in sequences]
            turns.append(Turn(cos, sin, tuple(parts)))
        return turns

    def _span(self, at: int, cache: KVCache, start: int, rows: int, soft: SoftRows | None) -> Span:
        """Where `rows` rows from position `start` on stand in layers of the shape `at`."""
        shape = self._shapes[at]
        base = cache.sliding_base if shape.kind == "sliding" else 0
        window = self._window(shape)
        if rows <= EXACT_ROWS and soft is None:
            pieces = () if self._native else self._masks[at].pieces(start, rows, base)
        else:
            images = soft is not None and self.config.bidirectional_images
            blocks = soft.blocks if images and soft and shape.kind == "sliding" else None
            pieces = common_piece(start, rows, window, base, self._like, blocks)
        return Span(cache.length - base, rows, pieces, start, base, window)

    def _window(self, layer: LayerConfig) -> int | None:
        return self.config.window if layer.kind == "sliding" else None

    def _run(
        self, begin: int, end: int, x: Tensor, ple: Tensor | None, turns: list[Turn]
    ) -> Tensor:
        """Rows through layers begin..end-1; those that own K/V write them to the caches."""
        if begin < end and self._native and _few(turns):
            return run_native(self._native, begin, end, x, ple, turns, self._donors)
        if begin < end and self._scripted and _few(turns):
            return self._run_scripted(begin, end, x, ple, [script_arguments(t) for t in turns])
        for first, last, device in stretches(self.layer_devices, begin, end):
            here = turns if device == self.device else [moved(turn, device) for turn in turns]
            x = x.to(device)
            for index in range(first, last):
                x = self._layer(index, x, ple, here[self._shape_of_layer[index]])
        return x

    def _layer(self, index: int, x: Tensor, ple: Tensor | None, turn: Turn) -> Tensor:
        layer, donor = self._layers[index], self.config.layers[index].donor
        heads = layer.project(layer.input_norm(x), turn.cos, turn.sin)
        attended = _filled(attend_parts(heads, layer.heads, index, donor, turn), x.shape[0])
        return layer.finish(x, attended, None if ple is None else ple[:, index].to(x.device))

    def _taking(self, take: Take, index: int) -> Take:
        device = self.layer_devices[index]
        return take if device == self.device else taking_to(take, device)

    def _run_scripted(
        self, begin: int, end: int, x: Tensor, ple: Tensor | None, places: list[ScriptArguments]
    ) -> Tensor:
        for index in range(begin, end):
            place = places[self._shape_of_layer[index]]
            donor = self.config.layers[index].donor
            own = [] if donor is not None else [cache.store(index) for cache in place.caches]
            read = self._donors[index]
            x = self._scripted[index](
                x,
                place.cos,
                place.sin,
                own,
                place.writes,
                [cache.store(read) for cache in place.cache_of_piece],
                place.pieces,
                place.masks,
                None if ple is None else ple[:, index],
            )
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


def _few(turns: list[Turn]) -> bool:
    """Whether so few rows are computed that each has a product of its own."""
    separate = all(piece.mask.ndim == 4 for part in turns[0].parts for piece in part.span.pieces)
    return separate and turns[0].cos.shape[0] <= 2 * FEW_ROWS


def _groups(counts: list[int]) -> list[tuple[int, int]]:
    """Neighbours that run together: begin and end of each group."""
    groups: list[tuple[int, int]] = []
    begin = total = 0
    for index, count in enumerate(counts):
        full = (
            total + count > FEW_ROWS or count > EXACT_ROWS or total > EXACT_ROWS * (index - begin)
        )
        if index > begin and full:
            groups.append((begin, index))
            begin, total = index, 0
        total += count
    return [*groups, (begin, len(counts))] if counts else []
