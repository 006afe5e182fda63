"""What the engine asks of a target and a drafter; it knows nothing else of models."""

from typing import Any, Protocol

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import CacheShape, KVCache


class TextShape(CacheShape, Protocol):
    """What the engine must know of a model's shape."""

    @property
    def vocab_size(self) -> int: ...


class Candidates(Protocol):
    """Tokens a drafter scored."""

    @property
    def ids(self) -> Tensor | None: ...  # [candidates] int64; None: the column is the token id
    @property
    def logits(self) -> Tensor: ...  # [candidates] f32


class Target(Protocol):
    """The model whose text it is."""

    @property
    def config(self) -> TextShape: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...

    def forward(self, tokens: Tensor, cache: KVCache, keep: int | None = None) -> Tensor:
        """The last `keep` final hidden rows [keep, hidden] of `tokens` [rows] int64.

        Afterwards `cache` holds the tokens too.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores [rows, vocab] f32 of the token after each row; a fresh tensor."""


class Drafter(Protocol):
    """The small model that guesses what the target will say."""

    def prepare(self, cache: KVCache) -> Any:
        """What the steps of one round need of the committed keys and values."""

    def step(self, token: Tensor, hidden: Tensor, context: Any) -> tuple[Tensor, Tensor]:
        """Rows (normed [1, draft hidden], next hidden [1, hidden]) after `token` [1] int64."""

    def candidates(self, normed: Tensor) -> Candidates:
        """Scores of the token that follows."""
