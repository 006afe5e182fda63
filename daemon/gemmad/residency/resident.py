"""The states of one loaded pair and of one request that waits for it."""

import asyncio
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from gemmad.core import Manifest, ModelName
from gemmad.wire import Progress, Quantize

if TYPE_CHECKING:
    from gemmad.residency.ports import Runner

FOREVER = math.inf


class State(Enum):
    """LOADING -> READY -> DRAINING -> STOPPING -> gone."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"  # finishes what runs, takes nothing new
    STOPPING = "stopping"  # its process is being ended


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


@dataclass(eq=False, slots=True)
class Resident:
    """One pair in memory or on its way in or out. Only the scheduler writes it (but `progress`)."""

    wanted: Wanted
    keep_alive_s: float
    last_used: float
    state: State = State.LOADING
    runner: "Runner | None" = None
    users: set[Waiter] = field(default_factory=set)
    expires: float = math.inf  # when an idle READY pair leaves
    stop_by: float = math.inf  # when a DRAINING pair is stopped although it is busy
    progress: Progress | None = None  # of the load; written by its task, shown by ps

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

    def serves(self, wanted: Wanted) -> bool:
        """Whether what is loaded is what `wanted` asks for."""
        mine = self.wanted
        if mine.manifest.id != wanted.manifest.id:
            return False
        if wanted.exact_weights and mine.weights != wanted.weights:
            return False
        return mine.num_ctx == wanted.num_ctx or (
            not wanted.exact and mine.num_ctx > wanted.num_ctx
        )
