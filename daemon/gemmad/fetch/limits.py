"""How hard a fetch tries, and how much of the network it takes."""

from dataclasses import dataclass

from gemmad.core import ByteCount


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """The bounds of every fetch; tests make them small."""

    connections: int = 4  # to one file's host; more only helps where each of them is throttled
    connect_s: float = 10.0
    stall_s: float = 30.0  # no byte for so long: another connection
    slow_s: float = 5.0  # a range is compared with the others after so long
    least_rate: int = 1 << 10  # bytes a second; a connection slower than this is as good as dead
    attempts: int = 8  # of one range, without progress between
    backoff_s: float = 0.5  # before the second attempt; doubles
    backoff_most_s: float = 30.0
    retry_after_most_s: float = 120.0  # a server that asks for more patience ends the pull
    hops: int = 10
    rate: ByteCount | None = None  # bytes a second over all fetches; None: as fast as it goes
