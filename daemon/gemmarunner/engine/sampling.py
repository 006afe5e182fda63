"""From a row of logits to the token it chooses: a function of (row, text so far, seed, position).

Order of the processors, as transformers applies them for Gemma (penalties and temperature before
the cuts):

1. repetition, then frequency and presence penalties over the last `repeat_last_n` tokens
2. suppressed ids get no chance
3. temperature
4. top_k: a token tied with the k-th stays
5. top_p: the smallest set of likeliest tokens with at least this mass; ties with its last stay
6. min_p: at least this share of the likeliest token's probability

The draw is a race: token x finishes at the time -log(u(position, x)) / p(x), with u even in 0 to 1,
and the first one wins, which is x with probability p(x). The noise belongs to the place in the text
and not to the draw before it, so a text depends on its seed alone, whatever was drafted on the way.
"""

import secrets
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.noise import log_uniform, stream_key
from gemmarunner.engine.penalties import Penalties
from gemmarunner.engine.request import Sampling

_GUESSED = 64  # a draft beyond the drafter's 64 likeliest would hardly ever stay


class Kept(NamedTuple):
    """What is left of some rows after the cuts."""

    ids: Tensor | None  # [rows, columns] int64; None: the column is the token id
    weights: Tensor  # [rows, columns] f32; in proportion to the probability, 0 = cut

    def dense(self, vocab: int) -> Tensor:
        """Probabilities [rows, vocab] f32 that sum to one."""
        shares = self.weights / self.weights.sum(-1, keepdim=True)
        if self.ids is None:
            return shares
        return torch.zeros(shares.shape[0], vocab, device=shares.device).scatter_(
            1, self.ids, shares
        )


class Stream(IntEnum):
    """Which of a request's independent streams of noise a draw uses."""

    CHOICE = 0  # the target's choice, and drafts coupled to it
    DRAFT = 1  # drafts drawn on their own
    ACCEPT = 2  # whether such a draft stays
    RESIDUAL = 3  # what replaces it


class Sampler:
    """One request's way of choosing tokens."""

    def __init__(
        self,
        sampling: Sampling,
        *,
        vocab: int,
        suppress_ids: tuple[int, ...] = (),
        device: torch.device | None = None,
    ) -> None:
        self.vocab = vocab
        self.sampling = sampling
        self.suppress_ids = suppress_ids
        self.greedy = sampling.temperature <= 0 or sampling.top_k == 1
        self._penalties = Penalties.of(sampling)
        self.bent = self._penalties.active  # by the text before a row, so it is no row's own matter
        self._device = device
        self._suppressed = torch.tensor(suppress_ids, dtype=torch.int64, device=device)
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        self._keys = {stream: stream_key(seed, stream) for stream in Stream}

    def key(self, stream: Stream) -> int:
        """The 64-bit key of one of the request's streams of noise."""
        return self._keys[stream]

    def history(self, tokens: list[int]) -> Tensor | None:
        """What `choose` must know of the text before it; None when it does not matter."""
        if not self._penalties.active:
            return None
        recent = self._penalties.recent(tokens)
        return torch.tensor(recent, dtype=torch.int64, device=self._device)

    def choose(self, logits: Tensor, history: Tensor | None, position: int) -> Tensor:
        """The tokens [rows] int64 that rows `logits` [rows, vocab] choose; overwrites `logits`.

        Row 0 chooses the token at index `position` of the text, each later row the next one;
        `history` ends before the last row's token.
        """
        if self.greedy:
            return self.processed(logits, history).argmax(-1)
        return self.draw(self.kept(logits, history), position, Stream.CHOICE)

    def kept(self, logits: Tensor, history: Tensor | None, ids: Tensor | None = None) -> Kept:
        """The processed distribution of every row; `ids` names the columns of a draft row."""
        kept = cut(self.processed(logits, history, ids), self.sampling)
        if ids is None:
            return kept
        return Kept(ids[None] if kept.ids is None else ids[kept.ids], kept.weights)

    def processed(
        self, logits: Tensor, history: Tensor | None, ids: Tensor | None = None
    ) -> Tensor:
        """`logits` after steps 1 and 2; ids are suppressed in target rows alone."""
        if history is not None:
            logits = self._penalties.apply(logits, history, self.vocab, ids)
        if ids is None and self._suppressed.numel():
            logits = logits.index_fill_(-1, self._suppressed, -torch.inf)
        return logits

    def guess(
        self, logits: Tensor, history: Tensor | None, ids: Tensor | None, position: int
    ) -> Tensor:
        """The token [1] that `choose` would choose if the target's row were `logits` [1, columns].

        A quick twin of `cut` and `draw`: it looks for no ties, sees `_GUESSED` columns at most,
        and needs no draw on the CPU where one token alone has the mass of top_p.
        """
        row = scaled(self.processed(logits, history, ids), self.sampling.temperature)
        top_k, top_p = self.sampling.top_k or _GUESSED, self.sampling.top_p
        weights, columns = row.softmax(-1).topk(min(top_k, _GUESSED, row.shape[-1]))
        if row.device.type == "cpu" and weights[0, 0].item() >= top_p:
            return columns[0, :1] if ids is None else ids[columns[0, :1]]
        if top_p < 1:
            mass = weights.cumsum(-1)
            weights.masked_fill_(mass.sub(weights) >= mass[:, -1:].mul_(top_p), 0.0)
        weights = _at_least(weights, self.sampling.min_p)
        kept = Kept(columns if ids is None else ids[columns], weights)
        return self.draw(kept, position, Stream.CHOICE)

    def draw(self, kept: Kept, position: int, stream: Stream) -> Tensor:
        """One token [rows] int64 from each row; row 0 is at index `position` of the text."""
        race = kept.weights / self.noise(kept, position, stream)  # minus one over finishing time
        column = race.argmin(-1, keepdim=True)
        return (column if kept.ids is None else kept.ids.gather(-1, column)).squeeze(-1)

    def noise(self, kept: Kept, position: int, stream: Stream) -> Tensor:
        """Logarithms [rows, columns] f32 of numbers drawn evenly from 0 to 1."""
        ids = kept.ids
        if ids is None:
            ids = torch.arange(kept.weights.shape[1], device=kept.weights.device)
            ids = ids.expand(kept.weights.shape)
        return log_uniform(self._keys[stream], position, ids)


def cut(logits: Tensor, sampling: Sampling) -> Kept:
    """The distribution of each row of `logits` [rows, columns] after steps 3 to 6."""
    rows = scaled(logits, sampling.temperature)
    columns = rows.shape[-1]
    top_k = sampling.top_k if 0 < sampling.top_k < columns else 0
    if not top_k and sampling.top_p >= 1:
        return Kept(None, _at_least(rows.softmax(-1), sampling.min_p))
    values, ids = _largest(rows, top_k) if top_k else rows.sort(-1, descending=True)
    weights = _nucleus(values.softmax(-1), sampling.top_p)
    return Kept(ids, _at_least(weights, sampling.min_p))


def scaled(logits: Tensor, temperature: float) -> Tensor:
    """`logits` divided by `temperature`."""
    return logits if temperature == 1.0 else logits / temperature


def _largest(rows: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The top_k columns of each row, likeliest first, and every column tied with the last of them.

    NOTE: looking for the tie costs one device sync a call.
    """
    values, ids = rows.topk(top_k + 1)
    if not bool((values[:, top_k - 1] == values[:, top_k]).any()):
        return values[:, :top_k], ids[:, :top_k]
    last = values[:, top_k - 1 : top_k]
    values, ids = rows.topk(int((rows >= last).sum(-1).max()))
    return values.masked_fill(values < last, -torch.inf), ids


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """`weights` (descending) with 0 for all after the mass of `top_p` is reached."""
    if top_p >= 1:
        return weights
    before = weights.cumsum(-1).sub_(weights)
    dropped = before >= max(top_p, 1e-9)  # the likeliest, with no mass before it, always stays
    last = weights.masked_fill(dropped, torch.inf).amin(-1, keepdim=True)
    return weights.masked_fill_(weights < last, 0.0)


def _at_least(weights: Tensor, min_p: float) -> Tensor:
    if min_p <= 0:
        return weights
    return weights.masked_fill_(weights < min_p * weights.amax(-1, keepdim=True), 0.0)
