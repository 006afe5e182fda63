"""Which pieces of a file are still to be brought, by whom, and after which failure again."""

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gemmad.fetch.answers import Asked
from gemmad.fetch.limits import FetchLimits
from gemmad.fetch.trouble import Subject, Transient, asks_to_wait, gave_up

_PROGRESS_BYTES = 256 << 10  # so much between two failures, and the count begins anew
_LAGGING = 8  # times slower than usual
_MOST_EVICTIONS = 2

_jitter = random.SystemRandom().random


@dataclass(slots=True, eq=False)
class Piece:
    """One chunk on its way. In flight, its worker alone writes it; else whoever holds the lock."""

    chunk: int
    begin: int
    length: int
    rank: int = 0  # the lower the earlier
    done: int = 0
    crc: int = 0
    failures: int = 0
    not_before: float = 0.0
    progress: int = 0  # `done` at the last failure
    since: float = 0.0  # in flight: when it began, and with how much
    since_done: int = 0
    evicted: bool = False
    evictions: int = 0

    @property
    def left(self) -> int:
        """Bytes to come."""
        return self.length - self.done

    def asked(self, size: int) -> Asked:
        """The request for what is left."""
        return Asked(self.begin + self.done, self.begin + self.length, size)

    def rate(self, now: float) -> float:
        """Bytes a second since it is in flight."""
        return (self.done - self.since_done) / max(1e-3, now - self.since)


def laggard(pieces: Iterable[Piece], usual: float, now: float, slow_s: float) -> Piece | None:
    """The piece that another connection should go on with: slow beside `usual`, far from done."""
    for piece in sorted(pieces, key=lambda piece: piece.rate(now)):
        rate = max(1.0, piece.rate(now))
        old = now - piece.since >= slow_s and piece.evictions < _MOST_EVICTIONS
        if old and rate * _LAGGING < usual and piece.left / rate > slow_s:
            return piece
    return None


class Work:
    """The pieces of one file. `_changed` is between its workers, its director and `stop`."""

    def __init__(self, pieces: Iterable[Piece], subject: Subject, limits: FetchLimits) -> None:
        self.error: BaseException | None = None
        self.troubled: set[int] = set()  # chunks that did not come in one go
        self._subject, self._limits = subject, limits
        self._pending = list(pieces)
        self._flying: dict[Piece, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._opened = False  # the first answer has come; until then one connection is enough
        self._streaming = False
        self._paused_until = 0.0
        self._usual = 0.0  # bytes a second of the best piece so far
        self._streak = 0  # failures since bytes came, whichever piece
        self._left_then = self._left()  # at the last failure

    # --- workers ---

    def take(self, abort: Callable[[], None], rest_until: float = 0.0) -> Piece | None:
        """The next piece, the caller's until it is `finished` or `failed`; None: no more is to do.

        `abort` cuts the caller's connection short. Nothing is taken before `rest_until`.
        """
        with self._changed:
            while not self.ended:
                now = time.monotonic()
                if now < rest_until:
                    self._changed.wait(rest_until - now)
                elif piece := self._ready(now):
                    self._fly(piece, abort, now)
                    return piece
                else:
                    self._relieve(now)
                    self._changed.wait(self._nap(now))
            return None

    def claim_from(self, position: int, abort: Callable[[], None]) -> Piece | None:
        """The first piece whose rest begins at `position` or after: for one stream through all."""
        with self._changed:
            later = [p for p in self._pending if p.begin + p.done >= position]
            piece = min(later, key=lambda p: p.begin, default=None)
            if piece:
                self._fly(piece, abort, time.monotonic())
            return piece

    def opened(self) -> None:
        """The server serves ranges: more connections are worth it."""
        with self._changed:
            self._opened = True
            self._changed.notify_all()

    def stream(self, piece: Piece) -> bool:
        """The caller brings all pieces by one stream, `piece` is free; False: another does."""
        with self._changed:
            if self._streaming:
                return False
            self._streaming = True
            self._land(piece)
            self._pending.append(piece)
            return True

    def stream_ended(self) -> None:
        """Others may take pieces again."""
        with self._changed:
            self._streaming = False
            self._changed.notify_all()

    def finished(self, piece: Piece) -> None:
        """The piece is where it belongs."""
        with self._changed:
            self._usual = max(self._usual, piece.rate(time.monotonic()))
            self._land(piece)
            self._changed.notify_all()

    def failed(self, piece: Piece, trouble: Transient) -> float:
        """The piece is tried again later, or the whole given up; when the worker should go on."""
        with self._changed:
            self._land(piece)
            self._pending.append(piece)
            self.troubled.add(piece.chunk)
            if piece.evicted:
                piece.evicted, piece.evictions = False, piece.evictions + 1
            elif not self.ended:
                self._put_off(piece, trouble, time.monotonic())
            self._changed.notify_all()
            return piece.not_before

    # --- director ---

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do, or nothing may be done."""
        return self._stopped or self.error is not None or not (self._pending or self._flying)

    @property
    def left(self) -> int:
        """Bytes to come."""
        with self._changed:
            return self._left()

    def fail(self, error: BaseException) -> None:
        """No more is done; the first error stands."""
        with self._changed:
            self.error = self.error or error
            self._cut()

    def stop(self) -> None:
        """No more is done."""
        with self._changed:
            self._stopped = True
            self._cut()

    def wait(self, seconds: float) -> None:
        """Something happened, or the time is over."""
        with self._changed:
            if not self.ended:
                self._changed.wait(seconds)

    # --- with the lock held ---

    def _left(self) -> int:
        return sum(piece.left for piece in (*self._pending, *self._flying))

    def _ready(self, now: float) -> Piece | None:
        if self._streaming or now < self._paused_until or (self._flying and not self._opened):
            return None
        ready = [piece for piece in self._pending if piece.not_before <= now]
        return min(ready, key=lambda piece: piece.rank, default=None)

    def _fly(self, piece: Piece, abort: Callable[[], None], now: float) -> None:
        self._pending.remove(piece)
        piece.since, piece.since_done = now, piece.done
        self._flying[piece] = abort

    def _land(self, piece: Piece) -> None:
        self._flying.pop(piece, None)

    def _nap(self, now: float) -> float | None:
        if self._streaming:
            return None
        if self._pending:
            due = max(self._paused_until, min(piece.not_before for piece in self._pending))
            return max(0.001, due - now) if due > now else None
        return self._limits.slow_s

    def _relieve(self, now: float) -> None:
        if self._pending or self._streaming:
            return
        if piece := laggard(self._flying, self._usual, now, self._limits.slow_s):
            piece.evicted = True
            self._flying[piece]()

    def _put_off(self, piece: Piece, trouble: Transient, now: float) -> None:
        self._count(piece, trouble.weight)
        wait_s = trouble.wait_s or 0.0
        if wait_s > self._limits.retry_after_most_s:
            self.error = asks_to_wait(self._subject, wait_s)
        elif max(piece.failures, self._streak // self._limits.connections) >= self._limits.attempts:
            self.error = gave_up(self._subject, trouble.why, max(piece.failures, self._streak))
        if self.error:
            self._cut()
            return
        growth = 2.0 ** (max(piece.failures, self._streak // self._limits.connections) - 1)
        backoff = min(self._limits.backoff_s * growth, self._limits.backoff_most_s)
        piece.not_before = now + max(wait_s, backoff * (0.5 + _jitter() / 2))
        self._paused_until = max(self._paused_until, now + wait_s)

    def _count(self, piece: Piece, weight: int) -> None:
        if piece.done - piece.progress >= _PROGRESS_BYTES:
            piece.failures = 0
        if self._left_then - self._left() >= _PROGRESS_BYTES:
            self._streak = 0
        piece.progress, self._left_then = piece.done, self._left()
        piece.failures += weight
        self._streak += weight

    def _cut(self) -> None:
        for abort in self._flying.values():
            abort()
        self._changed.notify_all()
