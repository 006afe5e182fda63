"""Hands events to everybody who listens, and waits for nobody."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator

from gemmad.api.errors import Busy
from gemmad.residency.seen import ResidencyEvent

MOST_LISTENERS = 64
MOST_BEHIND = 256  # events that a listener may be late


class Listener:
    """Events that one reader has not read yet."""

    def __init__(self) -> None:
        self.is_late = False  # it missed events
        self._is_closed = False
        self._unread: deque[ResidencyEvent] = deque()
        self._news = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Nothing will come any more."""
        return self.is_late or (self._is_closed and not self._unread)

    def put(self, told: ResidencyEvent) -> None:
        """One more event; one too many ends it."""
        if len(self._unread) >= MOST_BEHIND:
            self.is_late = True
        else:
            self._unread.append(told)
        self._news.set()

    def close(self) -> None:
        """It ends after what is unread."""
        self._is_closed = True
        self._news.set()

    async def next(self, patience_s: float) -> ResidencyEvent | None:
        """The next event; None when none came for `patience_s`, or none will."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._news.wait()
        found = self._unread.popleft() if self._unread else None
        if not self._unread and not self._is_closed:
            self._news.clear()
        return found


class Listeners:
    """Who listens. Only the event loop's thread calls it."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def publish(self, told: ResidencyEvent) -> None:
        """Every listener will read `told`."""
        for listener in self._listeners:
            listener.put(told)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Listener]:
        """Inside, events are kept for it.

        Raises:
            Busy: too many listen.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise Busy(f"{MOST_LISTENERS} programs listen already.", fix="End one of them.")
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """The streams end: the daemon does not wait for readers that never leave."""
        for listener in self._listeners:
            listener.close()
