"""A Gemma 4 MTP drafter on fused operators: one guess further for several sequences at once.

Computes what `models.drafter.Drafter` computes. Position and keys stand still over the steps of a
round; only token and hidden row move.
"""

import torch
from torch import Tensor

from gemmarunner.cuda.layer import Layer, LayerPlan, Pack, as_it_is, layer_take
from gemmarunner.cuda.slots import Slots
from gemmarunner.cuda.target import CudaTarget
from gemmarunner.kernels.attention import attend, chunk_for
from gemmarunner.kernels.centroid import centroid_logits
from gemmarunner.kernels.choose import Choosing, draft
from gemmarunner.kernels.linear import head, matmul
from gemmarunner.kernels.norm import norm
from gemmarunner.kernels.rows import Rows
from gemmarunner.models.config import CentroidConfig, DrafterConfig, check_pair
from gemmarunner.models.weights import Take, take_matrix, under


class CudaDrafter:
    """A drafter's weights, bound to the target whose embeddings and K/V it reads."""

    def __init__(
        self, config: DrafterConfig, take: Take, target: CudaTarget, *, pack: Pack = as_it_is
    ) -> None:
        """Raises PairMismatch, naming what differs, where the two do not belong together."""
        check_pair(target.config, config)
        hidden, backbone = config.hidden, config.backbone
        donors = {"sliding": target.config.sliding_donor, "full": target.config.full_donor}
        body = under(take, "model.")
        self.config = config
        self._target = target
        enter = take_matrix(take, ("pre_projection.weight", (hidden, 2 * backbone)))
        leave = take_matrix(take, ("post_projection.weight", (backbone, hidden)))
        self._enter, self._leave = pack("enter", enter), pack("leave", leave)
        self._donors = [donors[layer.kind] for layer in config.layers]
        self._layers = [
            Layer(
                LayerPlan(layer, hidden, config.heads, config.eps, target.dtype, owns_kv=False),
                layer_take(body, index),
                pack,
            )
            for index, layer in enumerate(config.layers)
        ]
        final = body("norm.weight", (hidden,)).float()
        self._norms = [layer.input_norm for layer in self._layers] + [final]
        self._centroids, self._head = None, None
        table, shape = "embed_tokens.weight", (config.vocab_size, hidden)
        if config.centroid:
            self._centroids = _Centroids(config.centroid, body(table, shape), take)
        else:
            self._head = pack("draft_head", take_matrix(body, (table, shape)))

    @torch.inference_mode()
    def step(self, tokens: Tensor, hidden: Tensor, rows: Rows, slots: Slots) -> Tensor:
        """Normed rows [B, draft hidden] T, for `guess` and `next_hidden`.

        `tokens` [B] int64; `hidden` [B, backbone] T is the target's row that chose each, or what
        `next_hidden` gave. `rows` has one row a sequence, at the first position without K/V.
        """
        dtype, eps = self._target.dtype, self.config.eps
        embedded = self._target.embed_for_draft(tokens).to(dtype)
        x = matmul(torch.cat((embedded, hidden), 1), self._enter).float().sum(0)
        normed = norm(x, self._norms[0], eps, dtype)
        for index, (layer, donor) in enumerate(zip(self._layers, self._donors, strict=True)):
            cache = slots.cache(donor)
            window = self.config.window if self.config.layers[index].kind == "sliding" else None
            q = layer.queries(normed, rows, None)
            chunk = chunk_for(cache.shape[3])
            attended = attend(q, cache, rows, window=window, lag=1, chunk=chunk)
            x, (normed,) = layer.finish(x, attended, None, self._norms[index + 1])
        return normed

    @torch.inference_mode()
    def next_hidden(self, normed: Tensor) -> Tensor:
        """What takes the place of the target's hidden row in the next step: [B, backbone] T."""
        return matmul(normed, self._leave).float().sum(0).to(self._target.dtype)

    @torch.inference_mode()
    def guess(self, normed: Tensor, how: Choosing, offset: int) -> Tensor:
        """Drafts [B] int64 for the text index `offset` beyond `how.position`."""
        logits, ids = self.scores(normed)
        return draft(logits, ids, how, offset, self._target.suppressed)

    @torch.inference_mode()
    def scores(self, normed: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [B, candidates] f32 and their tokens [B, candidates]; None: the columns."""
        if self._centroids is not None:
            return self._centroids(normed)
        assert self._head is not None
        return head(normed, self._head, None), None


class _Centroids:
    """Scores only the tokens of the clusters whose centroids match best."""

    def __init__(self, config: CentroidConfig, table: Tensor, take: Take) -> None:
        vocab_size, hidden = table.shape
        ordering = take("masked_embedding.token_ordering", (vocab_size,)).long()
        shape = (config.centroids, hidden)
        self._centroids = take("masked_embedding.centroids.weight", shape).contiguous()
        self._ids = ordering.view(config.centroids, -1)
        # Rows in cluster order: a chosen cluster is one block to read instead of many rows.
        self._clusters = table[ordering].view(config.centroids, -1, hidden)
        self._top_k = config.top_k

    def __call__(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        return centroid_logits(normed, self._centroids, self._clusters, self._ids, self._top_k)
