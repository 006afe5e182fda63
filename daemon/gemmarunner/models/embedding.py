"""Token embeddings: the scaled table, and the per-layer ones of the small models."""

import torch
from torch import Tensor

from gemmarunner.models.linear import make_linear
from gemmarunner.models.norm import make_norm
from gemmarunner.models.weights import Table, Take, look_up, take_matrix, take_table


class Embedding:
    """Rows of a table times the square root of their width."""

    def __init__(self, table: Table, width: int, dtype: torch.dtype) -> None:
        self._table = table  # as stored: few rows are read, and it may be half the model
        self._dtype = dtype
        # bf16 holds sqrt(1536) = 39.19 as 39.25, and the models were trained with that
        self.scale = torch.tensor(width**0.5, dtype=dtype).item()

    def __call__(self, ids: Tensor) -> Tensor:
        """[rows, width] of ids [rows] int64."""
        return look_up(self._table, ids).to(self._dtype).mul_(self.scale)


class PerLayerEmbedding:
    """One small vector per row and layer, from the token and from its embedding."""

    def __init__(
        self, vocab_size: int, layers: int, ple_dim: int, hidden: int, eps: float, take: Take
    ) -> None:
        width = layers * ple_dim
        self.shape = (-1, layers, ple_dim)
        table = take_table(take, "embed_tokens_per_layer.weight", (vocab_size, width))
        context = ("per_layer_model_projection.weight", (width, hidden))
        self.context = make_linear(take_matrix(take, context))
        # The reference scales the projection by hidden^-0.5 before the norm, and the sum by
        # 2^-0.5. The first is the same as a larger eps; the second goes into weight and table.
        weight = take("per_layer_projection_norm.weight", (ple_dim,))
        self.norm = make_norm(weight * 0.5**0.5, eps * hidden)
        self.tokens = Embedding(table, ple_dim, weight.dtype)
        self.tokens.scale *= 0.5**0.5

    def __call__(self, ids: Tensor, embedded: Tensor) -> Tensor:
        """[rows, layers, ple_dim] of ids [rows] and their embeddings [rows, hidden]."""
        tokens = self.tokens(ids).view(self.shape)
        context = self.context(embedded).view(self.shape)
        return self.norm.add(tokens, context)
