"""Which prompts' keys and values are kept for the next turn: bookkeeping within a byte budget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from gemmarunner.engine.ports import Snapshot
from gemmarunner.engine.slot import common_length

MIN_TOKENS: Final = 64  # a shorter prompt is read again as quickly


class Usable(NamedTuple):
    """A snapshot and how much of a prompt it saves reading."""

    snapshot: Snapshot
    tokens: int


@dataclass(eq=False, slots=True)
class _Entry:
    text: list[int]
    snapshot: Snapshot
    shortest: int  # it can be cut back to this many tokens and not further


class PrefixCache:
    """Snapshots of prompts, the least recently used first; only the engine's thread calls it."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._entries: list[_Entry] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all snapshots."""
        return sum(entry.snapshot.nbytes for entry in self._entries)

    def find(self, prompt: list[int]) -> Usable | None:
        """The snapshot that holds most of the start of `prompt`, never all of it."""
        best = max(self._entries, key=lambda e: _usable(e, prompt), default=None)
        tokens = 0 if best is None else _usable(best, prompt)
        if best is None or tokens == 0:
            return None
        self._entries.remove(best)
        self._entries.append(best)
        return Usable(best.snapshot, tokens)

    def wants(self, text: list[int], estimated_bytes: int) -> bool:
        """Whether a snapshot of `text` is worth taking; room for it is made."""
        if not 0 < self.budget_bytes >= estimated_bytes or len(text) < MIN_TOKENS:
            return False
        if any(entry.text == text for entry in self._entries):
            return False
        self._drop_starts_of(text)
        self._drop_down_to(self.budget_bytes - estimated_bytes)
        return True

    def put(self, text: list[int], snapshot: Snapshot, can_truncate: Callable[[int], bool]) -> None:
        """Keeps `snapshot` of `text`; it replaces those of an earlier turn of the same text.

        `can_truncate` says of every length whether the snapshot could be cut back to it.
        """
        shortest = _shortest(len(text), can_truncate)
        self._drop_starts_of(text)
        self._entries.append(_Entry(text, snapshot, shortest))
        self._drop_down_to(self.budget_bytes)

    def reclaim(self, nbytes: int) -> int:
        """Drops the least recently used until `nbytes` are free; returns how many became so."""
        before = self.nbytes
        self._drop_down_to(before - nbytes)
        return before - self.nbytes

    def _drop_starts_of(self, text: list[int]) -> None:
        self._entries = [e for e in self._entries if e.text != text[: len(e.text)]]

    def _drop_down_to(self, nbytes: int) -> None:
        while self._entries and self.nbytes > nbytes:
            self._entries.pop(0)


def _usable(entry: _Entry, prompt: list[int]) -> int:
    common = min(common_length(entry.text, prompt), len(prompt) - 1)
    return common if common >= entry.shortest else 0


def _shortest(length: int, can_truncate: Callable[[int], bool]) -> int:
    """The least length from 1 on that can be cut back to; what can, can to all that are longer."""
    low, high = 1, length
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if can_truncate(middle) else (middle + 1, high)
    return high
