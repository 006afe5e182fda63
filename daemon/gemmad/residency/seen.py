"""What residency shows: a snapshot of everything in memory, and events as they happen.

Plain data: residency writes it, `ps`, `/api/events` and `/metrics` read it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from gemmad.core import ByteCount, Digest

DrafterState = Literal["absent", "attached", "detached", "set_aside"]
Priority = Literal["interactive", "batch"]
_NONE = ByteCount(0)


class EventKind(StrEnum):
    """What can happen to a pair, a budget or a request that waits."""

    LOADING = "loading"
    LOADED = "loaded"
    LOAD_FAILED = "load_failed"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"
    EVICTED = "evicted"  # it left to make room; `unloaded` follows when its process is gone
    DETACHED = "detached"
    ATTACHED = "attached"
    DRAFTER_SET_ASIDE = "drafter_set_aside"
    RECLAIMED = "reclaimed"
    PRESSURE = "pressure"
    CRASHED = "crashed"
    QUEUED = "queued"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ResidencyEvent:
    """One thing that happened. `numbers` are bytes, or seconds where the name ends in `_s`."""

    at: float  # seconds since 1970
    kind: EventKind
    model: str = ""  # empty: no pair's own
    reason: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


OnEvent = Callable[[ResidencyEvent], None]


def unheard(_event: ResidencyEvent) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is."""

    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class LayersSeen:
    """Layers of a target that lie on one of several devices."""

    device: str
    first: int
    count: int
    nbytes: ByteCount  # of the target there; on the last device with embeddings and head
    kv_bytes: ByteCount = _NONE


@dataclass(frozen=True, slots=True)
class TargetSeen:
    """Where a pair's target is."""

    device: str  # empty while it is not loaded; several, joined by "+", when its layers are split
    nbytes: ByteCount
    why: str = ""
    layers: tuple[LayersSeen, ...] = ()  # by device, when they are split


@dataclass(frozen=True, slots=True)
class DrafterSeen:
    """Where a pair's drafter is, and if it is nowhere, why."""

    state: DrafterState
    device: str = ""
    nbytes: ByteCount = _NONE
    why: str = ""


@dataclass(frozen=True, slots=True)
class CrashSeen:
    """Crashes of a pair's runner within the breaker's window."""

    count: int
    open_until: float | None = None  # seconds since 1970 until which it is refused
    reason: str = ""
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RefusedSeen:
    """A pair that is not in memory and not loaded for now: its runner crashed too often."""

    name: str
    crashes: CrashSeen


@dataclass(frozen=True, slots=True)
class ResidentSeen:
    """One pair in memory or on its way in or out."""

    name: str
    manifest_id: Digest
    state: str  # of residency.resident.State
    slots: int
    num_ctx: int
    target: TargetSeen
    drafter: DrafterSeen
    num_ctx_why: str = ""  # why it is not what the settings say
    users: int = 0
    queued: int = 0  # requests that wait for this pair
    keep_alive_s: float = 0.0
    expires_in_s: float = 0.0  # infinity: never
    progress: LoadProgress | None = None
    kv_bytes: ByteCount = _NONE
    prefix_bytes: ByteCount = _NONE
    depth: int | None = None  # of the last round; None: no answer yet
    acceptance: tuple[float, ...] = ()  # by position, of the last answer
    tokens_per_second: float | None = None  # of finished answers, the latest counting most
    crashes: CrashSeen | None = None
    pid: int | None = None
    dtype: str = ""
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> ByteCount:
        """All that it takes."""
        parts = (self.target.nbytes, self.drafter.nbytes, self.kv_bytes, self.prefix_bytes)
        return ByteCount(sum(parts))


@dataclass(frozen=True, slots=True)
class Ours:
    """Bytes of one budget by what of ours takes them."""

    target: ByteCount = _NONE
    drafter: ByteCount = _NONE
    kv: ByteCount = _NONE
    prefixes: ByteCount = _NONE
    spare: ByteCount = _NONE
    other: ByteCount = _NONE  # workspace, graphs, what a process takes for its libraries

    @property
    def total(self) -> ByteCount:
        """All of it."""
        parts = (self.target, self.drafter, self.kv, self.prefixes, self.spare, self.other)
        return ByteCount(sum(parts))


@dataclass(frozen=True, slots=True)
class BudgetSeen:
    """One memory."""

    id: str  # of its device
    name: str
    total: ByteCount
    free: ByteCount  # what every program together leaves
    reserve: ByteCount  # what we leave free
    ours: Ours = Ours()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuedSeen:
    """A request that waits for its pair."""

    name: str
    priority: Priority
    waiting_s: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Counted since the daemon started."""

    loads: int = 0
    load_failures: int = 0
    unloads: int = 0
    evictions: int = 0
    detaches: int = 0
    attaches: int = 0
    crashes: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class ResidencySnapshot:
    """Everything at one moment; to be shown, never to decide by."""

    residents: tuple[ResidentSeen, ...] = ()
    budgets: tuple[BudgetSeen, ...] = ()
    queue: tuple[QueuedSeen, ...] = ()  # who is served first comes first
    totals: Totals = Totals()
    notes: tuple[str, ...] = ()
    refused: tuple[RefusedSeen, ...] = ()
