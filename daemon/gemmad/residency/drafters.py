"""Which drafters did harm, so that their targets go on alone; time is an argument.

A runner that dies while its drafter is loaded, or CRASHES times within WINDOW_S with it, gives its
drafter away. A SIGKILL is somebody's, not the drafter's. One that dies without it within WINDOW_S
after that clears it: something else is wrong.
"""

import math
import signal
from collections import deque
from collections.abc import Callable, Mapping

from gemmad.api.errors import RunnerCrashed
from gemmad.core import Digest
from gemmad.residency.resident import Drafter, Resident

CRASHES = 2
WINDOW_S = 60.0
_IN_USE = (Drafter.ATTACHED, Drafter.ATTACHING)


Keep = Callable[[Mapping[Digest, str]], None]  # all reasons, whenever they change


class SetAside:
    """Reasons by pair, until its files change or it is unloaded by its user."""

    def __init__(self, known: Mapping[Digest, str], keep: Keep) -> None:
        """`known`: those that were kept earlier."""
        self._crashes: dict[Digest, deque[float]] = {}
        self._reasons = dict(known)
        self._keep = keep
        self._accused: dict[Digest, float] = {}  # when, for a runner's death

    def why(self, pair: Digest) -> str | None:
        """Why the pair's drafter is not to be used; None: it may be."""
        return self._reasons.get(pair)

    def crashed(self, resident: Resident, error: RunnerCrashed, now: float) -> bool:
        """The runner died; True: its drafter is set aside for it from here on."""
        pair = resident.wanted.manifest.id
        if error.exit_code == -signal.SIGKILL:
            return False
        if pair in self._reasons or resident.drafter not in _IN_USE:
            if now - self._accused.get(pair, -math.inf) <= WINDOW_S:
                self.forget(pair)
            return False
        progress = resident.heard.progress
        loading = resident.runner is None and progress is not None and progress.phase == "drafter"
        times = self._crashes.setdefault(pair, deque(maxlen=CRASHES))
        times.append(now)
        again = len(times) == CRASHES and now - times[0] <= WINDOW_S
        if not (loading or again or resident.drafter is Drafter.ATTACHING):
            return False
        self.put(pair, f"its runner died with it: {error.message}")
        self._accused[pair] = now
        return True

    def put(self, pair: Digest, reason: str) -> None:
        """The pair's drafter is set aside."""
        self._reasons[pair] = reason
        self._keep(self._reasons)

    def forget(self, pair: Digest) -> None:
        """The drafter may try again."""
        self._crashes.pop(pair, None)
        self._accused.pop(pair, None)
        if self._reasons.pop(pair, None) is not None:
            self._keep(self._reasons)
