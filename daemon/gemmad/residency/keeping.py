"""Keeps the reserve of every memory free, and brings drafters back when there is room again.

Readings below the reserve mean that another program took memory, or that ours grew: the planner's
order is followed until the reserve is back. Pressure that the system tells of, although memory
looks free, takes one step of a twentieth of the host at a time.
"""

import math

from gemmad.memory.readings import HOST, Machine
from gemmad.residency.budgets import PLACES, Situation
from gemmad.residency.effects import Effects
from gemmad.residency.planner import relief
from gemmad.residency.resident import Drafter, Resident
from gemmad.residency.roster import Roster
from gemmad.residency.rules import Rules
from gemmad.residency.seen import EventKind
from gemmad.residency.situation import drafter_bytes

PRESSED = 40.0  # of 100: tasks wait for memory so often, or macOS warns
STEP_S = 10.0  # between two steps for such pressure, which is an average over so long
CALM_S = 5.0  # since the last pressure, and since a drafter left, before it comes back
_SPARED = 1.25  # times its bytes are free when a drafter comes back


class Keeper:
    """Only the scheduler calls it."""

    def __init__(self, roster: Roster, effects: Effects, rules: Rules) -> None:
        self._roster = roster
        self._effects = effects
        self._rules = rules
        self._pressed_at = -math.inf
        self._stepped_at = -math.inf
        self._short = False  # it was told of the pressure that lasts

    def relieve(self, machine: Machine, now: float) -> None:
        """What the reserves lack is on its way, as far as anybody may give it."""
        situation = self._roster.situation(machine, now)
        need = self._need(situation, machine, now)
        if not need:
            self._short = False
            return
        self._pressed_at = now
        steps = relief(situation, need)
        if steps or not self._short:
            short = {f"{budget}_bytes": float(nbytes) for budget, nbytes in need.items()}
            why = f"short of {', '.join(need)}" + ("" if steps else ", and nobody can give any")
            self._effects.tell(EventKind.PRESSURE, reason=why, numbers=short)
        self._short = True
        self._roster.obey(steps, "memory is short", now)

    def _need(self, situation: Situation, machine: Machine, now: float) -> dict[str, int]:
        need = {
            room.id: missing
            for room in situation.rooms
            if room.id != PLACES and (missing := room.reserve - room.free - room.soon) > 0
        }
        pressed = (machine.host.pressure or 0.0) >= PRESSED
        if pressed and now >= self._stepped_at + STEP_S:
            self._stepped_at = now
            need[HOST] = max(need.get(HOST, 0), machine.host.total // 20)
        return need

    def reattach(self, machine: Machine, now: float) -> None:
        """At most one drafter is on its way back, the last used pair's first."""
        if not self._rules.may_attach or now < self._pressed_at + CALM_S:
            return
        situation = self._roster.situation(machine, now)
        if situation.loading:
            return
        for resident in sorted(self._roster, key=lambda r: -r.last_used):
            if self._may_return(resident, situation, now):
                self._roster.attach(resident, now)
                return

    @staticmethod
    def _may_return(resident: Resident, situation: Situation, now: float) -> bool:
        if resident.drafter is not Drafter.DETACHED or not (resident.settled and resident.usable):
            return False
        if now < max(resident.drafter_moved + CALM_S, resident.left_alone_until):
            return False
        return all(
            (room := situation.room(budget)) is not None and room.left >= _SPARED * nbytes
            for budget, nbytes in drafter_bytes(resident).items()
        )
