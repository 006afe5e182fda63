"""One budget of bytes a second over all fetches."""

import threading

from gemmad.core import ByteCount

BURST_S = 0.1
_LEAST_READ = 4 << 10


class Bandwidth:
    """Says how long to wait after bytes came, so that the rate holds in the mean.

    `_lock` is between the threads of all fetches and whoever sets the rate.
    """

    def __init__(self, rate: ByteCount | None) -> None:
        self._rate = rate
        self._paid_until = 0.0  # all bytes so far are paid for at this time
        self._lock = threading.Lock()

    @property
    def rate(self) -> ByteCount | None:
        """Bytes a second; None: no bound."""
        return self._rate

    def set_rate(self, rate: ByteCount | None) -> None:
        """From now on `rate` holds, for fetches under way too."""
        with self._lock:
            self._rate, self._paid_until = rate, 0.0

    def spend(self, count: int, now: float) -> float:
        """`count` bytes came; seconds to wait before more are read."""
        with self._lock:
            if not self._rate:
                return 0.0
            self._paid_until = max(self._paid_until, now - BURST_S) + count / self._rate
            return max(0.0, self._paid_until - now)

    def read_bytes(self, most: int) -> int:
        """How much one read may bring without a visible jerk."""
        rate = self._rate
        return max(_LEAST_READ, min(most, int(rate * BURST_S))) if rate else most
