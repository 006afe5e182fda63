"""The states of one loaded pair, of its drafter, and of one request that waits for it."""

import asyncio
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from gemmad.core import Manifest, ModelName
from gemmad.residency.seen import Priority
from gemmad.wire import DraftStats, Measured, Progress, Quantize

if TYPE_CHECKING:
    from gemmad.residency.fits import Fit
    from gemmad.residency.ports import Runner

FOREVER = math.inf


class State(Enum):
    """LOADING -> READY -> DRAINING -> STOPPING -> gone."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"  # finishes what runs, takes nothing new
    STOPPING = "stopping"  # its process is being ended


class Drafter(Enum):
    """ABSENT for ever; else ATTACHED <-> DETACHED by way of the other two; SET_ASIDE stays."""

    ABSENT = "absent"  # the pair has none
    ATTACHED = "attached"
    DETACHING = "detaching"
    DETACHED = "detached"  # it comes back when memory has room
    ATTACHING = "attaching"
    SET_ASIDE = "set_aside"  # it did harm: the target goes on alone


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request needs loaded."""

    name: ModelName  # a key (lower case)
    manifest: Manifest
    num_ctx: int
    exact: bool  # the request named num_ctx: a larger loaded context will not do
    quantize: Quantize | None = None
    draft_quantize: Quantize | None = None
    deterministic: bool = False
    exact_weights: bool = False  # it named one of these: a pair loaded otherwise will not do
    more_than: int = 0  # its prompt did not fit into a context of so many, made smaller for room
    without_drafter: bool = False  # for harm it did, or for want of memory at an earlier try

    @property
    def weights(self) -> tuple[Quantize | None, Quantize | None, bool]:
        """How the pair's weights are loaded."""
        return self.quantize, self.draft_quantize, self.deterministic


@dataclass(eq=False, slots=True)
class Waiter:
    """One request: first in the queue, then a user of the resident it was granted."""

    wanted: Wanted
    keep_alive_s: float | None  # None: the request did not say
    granted: "asyncio.Future[Resident]"
    priority: Priority = "interactive"
    # Written by the scheduler when the request comes.
    arrived: float = 0.0
    deadline: float = math.inf  # it has its pair by then, or an error


@dataclass(slots=True)
class Heard:
    """What a pair's runner told last; written by the loop, shown, and never decided by."""

    progress: Progress | None = None  # of the load
    draft: DraftStats | None = None  # of the last answer
    tokens_per_second: float | None = None  # of answers, the latest counting most


@dataclass(eq=False, slots=True, weakref_slot=True)
class Resident:
    """One pair in memory or on its way in or out. Only the scheduler writes it (but `heard`)."""

    wanted: Wanted
    keep_alive_s: float
    last_used: float
    fit: "Fit | None" = None  # how it is loaded
    state: State = State.LOADING
    runner: "Runner | None" = None
    users: set[Waiter] = field(default_factory=set)
    slots: int = 1
    expires: float = math.inf  # when an idle READY pair leaves
    stop_by: float = math.inf  # when a DRAINING pair is stopped although it is busy
    load_by: float = math.inf  # when a LOADING pair is given up
    load_began: float = 0.0
    reload_s: float = 1.0  # what a load of it takes
    leaves_for_others: bool = False  # it was asked to go: a load that follows is a reload
    drafter: Drafter = Drafter.ABSENT
    drafter_why: str = ""
    drafter_moved: float = -math.inf  # when it last came or went
    measured: Measured | None = None
    prefix_bytes: int = 0
    giving: int = 0  # bytes of prefixes that are being given back
    under_way: int = 0  # things that its runner was asked to give or take
    settles_by: float = math.inf  # when they are given up
    left_alone_until: float = -math.inf  # it did not do what it was asked
    heard: Heard = field(default_factory=Heard)

    @property
    def leaving(self) -> bool:
        """It takes no new work."""
        return self.state in (State.DRAINING, State.STOPPING)

    @property
    def usable(self) -> bool:
        """It can be granted. A runner that just died is not, although `gone` is still to come."""
        if self.state is not State.READY or self.runner is None:
            return False
        return not self.runner.closed.done()

    @property
    def idle(self) -> bool:
        """It is ready and nobody uses it."""
        return self.state is State.READY and not self.users

    @property
    def settled(self) -> bool:
        """Nothing is under way with it."""
        return self.state is State.READY and not self.under_way

    @property
    def num_ctx(self) -> int:
        """The context it has, or will have."""
        return self.wanted.num_ctx if self.fit is None else self.fit.setting.num_ctx

    @property
    def weights(self) -> tuple[Quantize | None, Quantize | None, bool]:
        """How its weights are loaded: packed although nobody asked for it, where room was short."""
        packed, draft, deterministic = self.wanted.weights
        return (packed if self.fit is None else self.fit.setting.quantize), draft, deterministic

    def serves(self, wanted: Wanted) -> bool:
        """Whether what is loaded is what `wanted` asks for."""
        mine = self.wanted
        if mine.manifest.id != wanted.manifest.id:
            return False
        if wanted.exact_weights and self.weights != wanted.weights:
            return False
        if wanted.exact:
            return self.num_ctx == wanted.num_ctx
        if self.num_ctx <= wanted.more_than:
            return False
        # What was asked for counts: where memory has room for less, a load brings no more.
        return mine.num_ctx >= wanted.num_ctx
