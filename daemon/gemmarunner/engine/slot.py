"""One K/V cache and the sequence that uses it; what an earlier sequence left is used again."""

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.sequence import Sequence


class Slot:
    """A place for one sequence at a time."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.sequence: Sequence | None = None
        self._held: list[int] = []  # the tokens in the cache; kept up to date between sequences

    def reusable(self, prompt: list[int]) -> int:
        """Tokens at the start of `prompt` that need not be read again; 0 while it is taken.

        Never the whole prompt: its last row chooses the first token. Where the sliding layers
        have moved past the common start, nothing of it can be used.
        """
        if self.sequence is not None:
            return 0
        common = 0
        for held, wanted in zip(self._held, prompt[:-1], strict=False):
            if held != wanted:
                break
            common += 1
        return common if self.cache.can_truncate(common) else 0

    def begin(self, sequence: Sequence) -> None:
        """Gives the slot to `sequence`; the cache then holds a start of its prompt."""
        assert self.sequence is None
        self.cache.truncate(self.reusable(sequence.tokens))
        self.sequence = sequence

    def end(self) -> None:
        """Frees the slot; the cache keeps the text for the next prompt that starts like it."""
        assert self.sequence is not None
        self._held = self.sequence.tokens[: self.cache.length]
        self.cache.truncate(len(self._held))
        self.sequence = None

    def clear(self) -> None:
        """Frees the slot and drops what the cache holds."""
        self.cache.truncate(0)
        self._held = []
        self.sequence = None
