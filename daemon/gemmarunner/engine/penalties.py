"""Repetition, presence and frequency penalties, the same on a verified row as in plain decoding."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from gemmarunner.engine.request import Sampling


@dataclass(frozen=True, slots=True)
class Penalties:
    """How tokens of the recent text are made less likely; 1, 0, 0 or a window of 0 is off."""

    repeat: float
    presence: float
    frequency: float
    window: int  # tokens looked back on; -1 = all of them

    @classmethod
    def of(cls, sampling: Sampling) -> Self:
        """The penalties a request asks for."""
        return cls(
            repeat=sampling.repeat_penalty,
            presence=sampling.presence_penalty,
            frequency=sampling.frequency_penalty,
            window=sampling.repeat_last_n,
        )

    @property
    def active(self) -> bool:
        """Whether any logit can change."""
        changes = (self.repeat, self.presence, self.frequency) != (1.0, 0.0, 0.0)
        return changes and self.window != 0

    def recent(self, tokens: list[int]) -> list[int]:
        """The part of `tokens` the penalties look at."""
        return tokens if self.window < 0 else tokens[-self.window :]

    def apply(self, logits: Tensor, history: Tensor, vocab: int, ids: Tensor | None) -> Tensor:
        """`logits` [rows, columns] less the penalties of the text before each row.

        `history` [tokens] int64 is the text before the last row; the text before the row above
        ends one token earlier, and so on. `ids` names the columns, None when they are token ids.
        """
        counts = self._counts(history, logits.shape[0], vocab)
        if ids is not None:
            counts = counts[:, ids]
        seen = counts > 0
        if self.repeat != 1.0:
            smaller = torch.where(logits < 0, logits * self.repeat, logits / self.repeat)
            logits = torch.where(seen, smaller, logits)
        return logits - (counts * self.frequency + seen * self.presence)

    def _counts(self, history: Tensor, rows: int, vocab: int) -> Tensor:
        """How often each token occurs in the window before each row: [rows, vocab] f32."""
        size = history.numel() if self.window < 0 else self.window
        missing = max(0, size + rows - 1 - history.numel())
        padding = torch.full((missing,), vocab, dtype=torch.int64, device=history.device)
        padded = torch.cat((padding, history))[-(size + rows - 1) :]
        windows = padded.unfold(0, size, 1)  # [rows, size]; id `vocab` stands for no token
        counts = torch.zeros(rows, vocab + 1, device=history.device)
        counts.scatter_add_(1, windows, torch.ones((), device=history.device).expand_as(windows))
        return counts[:, :vocab]
