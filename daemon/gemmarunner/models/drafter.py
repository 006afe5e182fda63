"""A Gemma 4 MTP drafter: guesses the target's next tokens from its hidden row and its K/V.

Position and K/V stand still over the steps of a round; only token and hidden row move.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KeysValues, KVCache
from gemmarunner.models.attention import each_row
from gemmarunner.models.config import CentroidConfig, DrafterConfig, check_pair
from gemmarunner.models.layers import Layer
from gemmarunner.models.linear import Linear, MakeLinear, make_linear, make_row_linear
from gemmarunner.models.native import drafter_place, native_layers
from gemmarunner.models.norm import make_norm
from gemmarunner.models.rope import RopeTable
from gemmarunner.models.scripted import script_layers
from gemmarunner.models.target import Target
from gemmarunner.models.weights import Take, take_matrix, under
from gemmarunner.native.layers import Places


class Candidates(NamedTuple):
    """What the next token may be, in the drafter's eyes; every other token has no chance."""

    ids: Tensor | None  # [candidates] int64; None: the index is the token id
    logits: Tensor  # [candidates] float32


class LayerContext(NamedTuple):
    """What one layer needs of a round."""

    cos: Tensor  # [1, 1, head_dim]
    sin: Tensor  # [1, 1, head_dim]
    seen: KeysValues
    store: list[Tensor]  # the donor's whole cache, and which slots of it are seen
    piece: list[list[int]]
    place: Places  # the same for the native library


DraftContext = list[LayerContext]


class Drafter:
    """A drafter's weights; `bind` gives it the target it reads."""

    def __init__(
        self,
        config: DrafterConfig,
        take: Take,
        device: torch.device,
        dtype: torch.dtype,
        *,
        linear: MakeLinear = make_row_linear,
        head: MakeLinear = make_linear,
    ) -> None:
        """`linear` and `head` make the big matrices' products: packed, if they are quantized."""
        self.config = config
        self.device = device
        self.dtype = dtype
        self.from_last_written = False  # constant position: len-1 (bonus token's), or len-2
        hidden, backbone = config.hidden, config.backbone
        self._enter = linear(take_matrix(take, ("pre_projection.weight", (hidden, 2 * backbone))))
        self._leave = linear(take_matrix(take, ("post_projection.weight", (backbone, hidden))))
        body = under(take, "model.")
        self._layers = [
            Layer(
                layer,
                hidden=hidden,
                heads=config.heads,
                eps=config.eps,
                take=under(body, f"layers.{index}."),
                owns_kv=False,
                linear=linear,
            )
            for index, layer in enumerate(config.layers)
        ]
        kv_heads = [layer.kv_heads for layer in config.layers]
        self._native = native_layers(self._layers, kv_heads, range(len(kv_heads)))
        self._scripted = [] if self._native else script_layers(self._layers, kv_heads)
        self._ropes = [RopeTable(s.rope, s.head_dim, device, dtype) for s in config.layers]
        self._norm = make_norm(body("norm.weight", (hidden,)), config.eps)
        table, shape = "embed_tokens.weight", (config.vocab_size, hidden)
        self._head = (
            CentroidHead(config.centroid, body(table, shape), take)
            if config.centroid
            else DenseHead(head(take_matrix(body, (table, shape))))
        )
        self._target: Target | None = None
        self._donors: list[int] = []

    def bind(self, target: Target) -> None:
        """Holds afterwards: rounds read this target's embeddings and its donors' K/V.

        Raises:
            PairMismatch: naming what differs and both values.
        """
        check_pair(target.config, self.config)
        donors = {"sliding": target.config.sliding_donor, "full": target.config.full_donor}
        self._donors = [donors[layer.kind] for layer in self.config.layers]
        self._target = target

    @torch.inference_mode()
    def prepare(self, cache: KVCache) -> DraftContext:
        """Views, valid until the target's next forward, that all steps of a round share.

        Only committed positions are seen: a sliding layer sees the last `window` of them.
        """
        assert cache.length > 0, "a drafter needs at least one committed position"
        position = cache.length - 1 if self.from_last_written else cache.length
        seen = {donor: _seen(cache, donor) for donor in set(self._donors)}
        context = []
        for rope, donor in zip(self._ropes, self._donors, strict=True):
            cos, sin = rope.rows(position, position + 1)
            place = drafter_place(cos, sin, cache, donor)
            context.append(LayerContext(cos, sin, *seen[donor], place))
        return context

    @torch.inference_mode()
    def step(self, token: Tensor, hidden: Tensor, context: DraftContext) -> tuple[Tensor, Tensor]:
        """One guess further: normed row [1, hidden] for `candidates`, next hidden [1, backbone].

        `token` is int64 [1]; `hidden` [1, backbone] is the target's final hidden row that produced
        it, or what the step before returned.
        """
        assert self._target is not None, "bind the drafter to its target first"
        x = self._enter(torch.cat((self._target.embedding(token), hidden), 1))
        if self._native:
            places, stores = [at.place for at in context], [at.store for at in context]
            return self._left(self._native(0, len(context), x, (0,), places, stores))
        if self._scripted:
            for scripted, at in zip(self._scripted, context, strict=True):
                x = scripted(x, at.cos, at.sin, [], [], at.store, at.piece, [], None)
            return self._left(x)
        for layer, at in zip(self._layers, context, strict=True):
            heads = layer.project(layer.input_norm(x), at.cos, at.sin)
            x = layer.finish(x, each_row(heads, at.seen, None))
        return self._left(x)

    def _left(self, x: Tensor) -> tuple[Tensor, Tensor]:
        normed = self._norm(x)
        return normed, self._leave(normed)

    @torch.inference_mode()
    def candidates(self, normed: Tensor) -> Candidates:
        """Scores of the next token after a step's normed row [1, hidden]; no softcap."""
        return self._head(normed)


def _seen(cache: KVCache, donor: int) -> tuple[KeysValues, list[Tensor], list[list[int]]]:
    """What a round sees of one donor, in a `LayerContext`'s words."""
    return cache.committed(donor), [cache.store(donor)], [[0, 1, *cache.seen(donor)]]


class DenseHead:
    """Scores the whole vocabulary."""

    def __init__(self, multiply: Linear) -> None:
        self._multiply = multiply

    def __call__(self, normed: Tensor) -> Candidates:
        return Candidates(None, self._multiply(normed)[0].float())


class CentroidHead:
    """Scores only the tokens of the clusters whose centroids match best."""

    def __init__(self, config: CentroidConfig, table: Tensor, take: Take) -> None:
        vocab_size, hidden = table.shape
        ordering = take("masked_embedding.token_ordering", (vocab_size,)).long()
        centroids = take("masked_embedding.centroids.weight", (config.centroids, hidden))
        self._top_k = config.top_k
        self._centroids = make_row_linear(centroids)
        self._ids = ordering.view(config.centroids, -1)
        # Rows in cluster order: a chosen cluster is one block to copy instead of many rows.
        self._clusters = table[ordering].view(config.centroids, -1)
        self._hidden = hidden

    def __call__(self, normed: Tensor) -> Candidates:
        top = self._centroids(normed)[0].topk(self._top_k, sorted=False).indices
        rows = self._clusters.index_select(0, top).view(-1, self._hidden)
        return Candidates(
            self._ids.index_select(0, top).view(-1), torch.mv(rows, normed[0]).float()
        )
