"""One thread that brings pieces of a file over one connection at a time."""

import logging
import time
import zlib
from collections.abc import Callable

from gemmad.fetch.bandwidth import Bandwidth
from gemmad.fetch.connection import network_words
from gemmad.fetch.limits import FetchLimits
from gemmad.fetch.route import Body, Link, Route
from gemmad.fetch.sinks import Sink
from gemmad.fetch.trouble import Transient
from gemmad.fetch.work import Piece, Work

log = logging.getLogger(__name__)

BUFFER_BYTES = 1 << 20
_FLUSH_S = 0.5  # so often at least a slow piece is written, and its progress seen
_STOPPED = "stopped"


class Worker:
    """Takes pieces until there are none; `keep_bytes` is what a kill may cost it."""

    def __init__(
        self,
        work: Work,
        route: Route,
        sink: Sink,
        bandwidth: Bandwidth,
        wait: Callable[[float], bool],
        *,
        turn: int,
        keep_bytes: int,
    ) -> None:
        """`wait` sleeps, and ends early with True when all is stopped."""
        self._work, self._route, self._sink = work, route, sink
        self._bandwidth, self._wait = bandwidth, wait
        self._keep_bytes = keep_bytes
        self._rest_until = 0.0  # after a failure
        self._limits: FetchLimits = route.limits
        self._link = Link(route, lambda: work.ended, turn)
        self._buffer = memoryview(bytearray(min(BUFFER_BYTES, max(1, route.entry.size))))

    def run(self) -> None:
        """No piece is left, or `Work` knows why."""
        try:
            while piece := self._work.take(self._link.abort, self._rest_until):
                self._attempt(piece)
        except BaseException as error:  # whatever it is, the director raises it
            self._work.fail(error)
        finally:
            self._link.close()

    def _attempt(self, piece: Piece) -> None:
        try:
            body = self._link.ask(piece.asked(self._route.entry.size))
            if not body.whole or piece.left == self._route.entry.size:
                self._note(body)
                self._work.opened()
                self._bring(piece, body)
                self._release(body)
                return
            self._require_stream(piece)
        except Transient as trouble:
            self._give_up(piece, trouble)
            return
        self._stream(body)

    def _note(self, body: Body) -> None:
        if not body.whole:
            self._route.ranges, self._route.ignored = True, 0

    def _bring(self, piece: Piece, body: Body) -> None:
        """What is left of the piece comes from the body, which begins there."""
        self._copy(piece, body)
        self._sink.end(piece)
        self._work.finished(piece)

    def _release(self, body: Body) -> None:
        if not body.reusable:
            self._link.close()

    def _give_up(self, piece: Piece, trouble: Transient) -> None:
        self._link.close()
        self._route.forget()
        if not self._work.ended:
            subject = self._route.subject
            log.info("%s from %s, part %d: %s", subject.name, subject.host, piece.chunk, trouble)
        try:
            self._sink.keep(piece)
        finally:
            self._rest_until = self._work.failed(piece, trouble)

    def _require_stream(self, piece: Piece) -> None:
        """The server sent all of the file instead of a range; the piece is free afterwards.

        Servers forget ranges now and then; it is taken as their way when it costs nothing, when
        they insist, or when the piece has but one attempt left.
        """
        route, attempts = self._route, self._limits.attempts
        route.ignored += 1
        patience = (attempts - 2) * self._limits.connections if route.ranges else 2
        costs = route.ranges or piece.begin + piece.done > 0
        if costs and route.ignored <= patience and piece.failures < attempts - 1:
            raise Transient("the server ignored the range")
        if not self._work.stream(piece):
            raise Transient("the server ignored the range", weight=0)  # another brings the piece

    def _stream(self, body: Body) -> None:
        """All pieces in their order from one body, what is here already passed over."""
        position = 0
        try:
            while piece := self._work.claim_from(position, self._link.abort):
                try:
                    self._skip(body, piece.begin + piece.done - position)
                    self._bring(piece, body)
                except Transient as trouble:
                    self._give_up(piece, trouble)
                    return
                position = piece.begin + piece.length
        finally:
            self._link.close()
            self._work.stream_ended()

    def _skip(self, body: Body, count: int) -> None:
        while count:
            count -= self._read(body, self._buffer[:count])

    def _copy(self, piece: Piece, body: Body) -> None:
        filled, kept = 0, piece.done
        began = flushed = time.monotonic()
        try:
            while piece.left > filled:
                count = self._read(body, self._buffer[filled : piece.left])
                filled += count
                now = time.monotonic()
                if filled == len(self._buffer) or now - flushed >= _FLUSH_S:
                    self._flush(piece, filled)
                    filled, flushed = 0, now
                    self._require_pace(piece, began, now)
                if piece.done - kept >= self._keep_bytes:
                    self._sink.keep(piece)
                    kept = piece.done
        finally:
            self._flush(piece, filled)

    def _read(self, body: Body, room: memoryview) -> int:
        if self._work.ended:
            raise Transient(_STOPPED)
        with network_words(self._limits):
            count = body.read_into(room[: self._bandwidth.read_bytes(len(room))])
        if not count:
            raise Transient("the connection ended early")
        pause = self._bandwidth.spend(count, time.monotonic())
        if pause and self._wait(pause):
            raise Transient(_STOPPED)
        return count

    def _flush(self, piece: Piece, filled: int) -> None:
        if filled:
            data = self._buffer[:filled]
            self._sink.put(piece, data)
            piece.crc = zlib.crc32(data, piece.crc)
            piece.done += filled

    def _require_pace(self, piece: Piece, began: float, now: float) -> None:
        """A byte now and then is no life: the connection is as good as dead."""
        judged = self._bandwidth.rate is None and now - began >= self._limits.stall_s
        if judged and piece.rate(now) < self._limits.least_rate:
            raise Transient(f"less than {self._limits.least_rate} bytes a second came")
