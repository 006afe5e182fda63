"""One place of the backend and the sequence in it; what an earlier sequence left is used again."""

from gemmarunner.engine.ports import Backend
from gemmarunner.engine.sequence import Sequence

_BLOCK = 1024


class Slot:
    """A place for one sequence at a time."""

    def __init__(self, backend: Backend, index: int) -> None:
        self.index = index
        self.sequence: Sequence | None = None
        self.freed = 0  # when it last became free, counted in requests
        self._backend = backend
        self._held: list[int] = []  # the tokens in the cache; kept up to date between sequences

    @property
    def held(self) -> int:
        """Tokens that a free slot still holds."""
        return len(self._held)

    @property
    def read(self) -> int:
        """Positions of its sequence that the model has read."""
        return self._backend.length(self.index)

    def reusable(self, prompt: list[int]) -> int:
        """Tokens at the start of `prompt` that need not be read again; the slot is free.

        Never the whole prompt: its last row chooses the first token. Where the sliding layers
        have moved past the common start, nothing of it can be used.
        """
        common = min(common_length(self._held, prompt), len(prompt) - 1)
        return common if self._backend.can_truncate(self.index, common) else 0

    def begin(self, sequence: Sequence, kept: int) -> None:
        """Gives the slot to `sequence`; of what it holds the first `kept` tokens stay."""
        assert self.sequence is None
        self._backend.truncate(self.index, kept)
        self.sequence = sequence

    def end(self, freed: int) -> None:
        """Frees the slot; the cache keeps the text for the next prompt that starts like it."""
        assert self.sequence is not None
        self._held = self.sequence.tokens[: self.read]
        self._backend.truncate(self.index, len(self._held))
        self.sequence, self.freed = None, freed

    def clear(self) -> None:
        """Frees the slot and drops what the cache holds."""
        self._backend.truncate(self.index, 0)
        self._held = []
        self.sequence, self.freed = None, 0


def common_length(one: list[int], other: list[int]) -> int:
    """How many tokens two texts have in common at their starts."""
    shorter = min(len(one), len(other))
    start = 0
    while start < shorter and one[start : start + _BLOCK] == other[start : start + _BLOCK]:
        start += _BLOCK
    for index in range(start, shorter):
        if one[index] != other[index]:
            return index
    return shorter
