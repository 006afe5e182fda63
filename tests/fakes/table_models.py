"""A target and drafters that are tables of logits: the whole distribution is known exactly.

A row's logits depend on the last two tokens as the cache holds them, so a token that should have
been rolled back shows in the text. They implement what `gemmarunner.engine.ports` asks for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KVCache


class TableLayer(NamedTuple):
    """A layer whose keys and values are the ids of the tokens."""

    kind: str
    head_dim: int = 1
    kv_heads: int = 1
    donor: int | None = None


class TableShape(NamedTuple):
    """The shape of a model that remembers tokens, once all of them and once a window."""

    vocab_size: int
    layers: tuple[TableLayer, ...] = (TableLayer("full"), TableLayer("sliding"))
    window: int = 4


class TableCandidates(NamedTuple):
    """Tokens a table drafter scored."""

    ids: Tensor | None
    logits: Tensor


class TableTarget:
    """Chooses by `table` [vocab * vocab, vocab]: the row is (token before last, last token)."""

    device = torch.device("cpu")
    dtype = torch.float32
    layer_devices = None

    def __init__(self, table: Tensor, window: int = 4) -> None:
        self.table = table
        self.config = TableShape(table.shape[1], window=window)
        self.rows_run: list[int] = []  # rows of every forward, for tests that count
        self.fail_on: int | None = None  # a token the model cannot read

    def forward(self, tokens: Tensor, cache: KVCache, keep: int | None = None) -> Tensor:
        """Rows [keep, 1] that hold the index of the table's row."""
        new = tokens.tolist()
        if self.fail_on in new:
            raise RuntimeError("this token breaks the model")
        cache.make_room(len(new))
        before = self._last_token(cache)
        kv = tokens.to(self.dtype)[:, None, None].expand(-1, 2, 1)
        cache.write(0, cache.length, kv)
        cache.write(1, cache.length - cache.sliding_base, kv)
        cache.length += len(new)
        self.rows_run.append(len(new))
        rows = [self.state(pair) for pair in zip([before, *new], new, strict=False)]
        return torch.tensor(rows if keep is None else rows[-keep:], dtype=torch.float64)[:, None]

    def forward_many(self, tokens: Sequence[Tensor], caches: Sequence[KVCache]) -> list[Tensor]:
        """`forward`, one sequence after another."""
        return [self.forward(rows, cache) for rows, cache in zip(tokens, caches, strict=True)]

    def _last_token(self, cache: KVCache) -> int:
        """The last committed token, 0 where there is none; both layers must tell the same text."""
        everything, window = cache.committed(0).keys, cache.committed(1).keys
        assert torch.equal(everything[:, :, everything.shape[2] - window.shape[2] :], window)
        return int(window[0, 0, -1, 0]) if cache.length else 0

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [rows, vocab] f32."""
        return self.table[hidden[:, 0].long()]

    def state(self, text: Sequence[int]) -> int:
        """The table's row after `text`."""
        before = text[-2] if len(text) > 1 else 0
        return before * self.config.vocab_size + text[-1]


class TableDrafter:
    """Guesses by its own table; `ids` are the only tokens it can name, all when None."""

    def __init__(self, table: Tensor, ids: Sequence[int] | None = None) -> None:
        self.vocab = table.shape[1]
        self.ids = None if ids is None else torch.tensor(ids)
        self.table = table if self.ids is None else table[:, self.ids]
        self.steps = 0

    def prepare(self, cache: KVCache) -> int:
        """The number of committed tokens."""
        return cache.length

    def step(self, token: Tensor, hidden: Tensor, context: int) -> tuple[Tensor, Tensor]:
        """The index of the table's row after `token`."""
        self.steps += 1
        row = (hidden % self.vocab) * self.vocab + token
        return row, row

    def candidates(self, normed: Tensor) -> TableCandidates:
        """Logits of the tokens it can name."""
        return TableCandidates(self.ids, self.table[normed[0].long()][0])


class ScriptDrafter:
    """Knows the right text of one request, and says the right token as often as `right` says.

    Stands in for drafters of any acceptance, whatever the target: `context` is the place in the
    text, and a wrong guess is the token after the right one.
    """

    def __init__(self, text: Sequence[int], vocab: int, right: float, seed: int = 0) -> None:
        self.text = list(text)
        self.vocab = vocab
        self.right = right
        self.generator = torch.Generator().manual_seed(seed)
        self.place = 0

    def prepare(self, cache: KVCache) -> None:
        """Remembers where in the text the round begins; the last token is not in the cache."""
        self.place = cache.length + 1

    def step(self, token: Tensor, hidden: Tensor, context: None) -> tuple[Tensor, Tensor]:
        """Moves one place on; the rows are not used."""
        self.place += 1
        return hidden, hidden

    def candidates(self, normed: Tensor) -> TableCandidates:
        """All weight on one token."""
        place = min(self.place - 1, len(self.text) - 1)
        lucky = float(torch.rand((), generator=self.generator)) < self.right
        token = (self.text[place] + (0 if lucky else 1)) % self.vocab
        logits = torch.full((self.vocab,), -30.0)
        logits[token] = 0.0
        return TableCandidates(None, logits)


def random_table(vocab: int, spread: float = 1.5, seed: int = 0) -> Tensor:
    """Logits [vocab * vocab, vocab] f32 that differ by some units of `spread`."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(vocab * vocab, vocab, generator=generator)
