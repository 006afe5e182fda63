"""Stop strings over a stream of text: finds the first complete one, shows nothing of it."""

from collections.abc import Sequence


class Stopper:
    """Watches one answer. Text that may be the beginning of a stop string is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False  # a stop string came; nothing after it is given

    def feed(self, text: str) -> str:
        """The text that is certainly before any stop string."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        self._held += text
        # The first to be complete wins, so that the result does not depend on the chunking.
        ends = [(at + len(s), at) for s in self._stops if (at := self._held.find(s)) >= 0]
        if ends:
            self.stopped = True
            return self._held[: min(ends)[1]]
        return self._release(len(self._held) - self._longest_beginning())

    def close(self) -> str:
        """The rest: no stop string can be completed any more."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, size: int) -> str:
        text, self._held = self._held[:size], self._held[size:]
        return text

    def _longest_beginning(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = max(map(len, self._stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-size:]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0
