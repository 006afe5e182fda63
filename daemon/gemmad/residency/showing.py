"""What residency shows of itself: a snapshot made of its state, and counts of what happened."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from gemmad.core import ByteCount
from gemmad.memory.readings import HOST, Budget, Machine
from gemmad.residency.breaker import CrashBreaker, CrashRecord
from gemmad.residency.resident import Drafter, Resident
from gemmad.residency.rules import Rules
from gemmad.residency.scheduler import Scheduler
from gemmad.residency.seen import (
    BudgetSeen,
    CrashSeen,
    DrafterSeen,
    DrafterState,
    EventKind,
    LayersSeen,
    LoadProgress,
    Ours,
    QueuedSeen,
    RefusedSeen,
    ResidencySnapshot,
    ResidentSeen,
    TargetSeen,
    Totals,
)
from gemmad.residency.situation import holds, prefixes_of, reserve_of

_COUNTED = {
    EventKind.LOADED: "loads",
    EventKind.LOAD_FAILED: "load_failures",
    EventKind.UNLOADED: "unloads",
    EventKind.EVICTED: "evictions",
    EventKind.DETACHED: "detaches",
    EventKind.ATTACHED: "attaches",
    EventKind.CRASHED: "crashes",
    EventKind.REFUSED: "refused",
}
_STATES: dict[Drafter, DrafterState] = {
    Drafter.ABSENT: "absent",
    Drafter.ATTACHED: "attached",
    Drafter.DETACHING: "detached",  # it is not used any more
    Drafter.DETACHED: "detached",
    Drafter.ATTACHING: "detached",
    Drafter.SET_ASIDE: "set_aside",
}


class Tally:
    """Counts events since the daemon started."""

    def __init__(self) -> None:
        self.totals = Totals()

    def count(self, kind: EventKind) -> None:
        """One more has happened."""
        if (name := _COUNTED.get(kind)) is not None:
            self.totals = replace(self.totals, **{name: getattr(self.totals, name) + 1})


def snapshot(
    scheduler: Scheduler, rules: Rules, totals: Totals, now: float, unix_offset: float
) -> ResidencySnapshot:
    """Everything at `now`; `unix_offset` is added where a time of day is shown."""
    machine, residents = scheduler.machine, tuple(scheduler.residents)
    return ResidencySnapshot(
        residents=tuple(_resident(scheduler, one, now, unix_offset) for one in residents),
        budgets=_budgets(machine, residents, rules, scheduler.residents.spare_bytes),
        queue=tuple(
            QueuedSeen(str(w.wanted.name), w.priority, max(0.0, now - w.arrived))
            for w in scheduler.queue.ordered(now)
        ),
        totals=totals,
        notes=machine.notes if machine else (),
        refused=tuple(
            RefusedSeen(str(name), _crash(record, now, unix_offset))
            for name, record in scheduler.breaker.refused(now)
            if scheduler.residents.get(name) is None
        ),
    )


def _resident(scheduler: Scheduler, one: Resident, now: float, offset: float) -> ResidentSeen:
    loaded = one.runner.loaded if one.runner else None
    measured, progress, draft = one.measured, one.heard.progress, one.heard.draft
    left_s = one.keep_alive_s if one.users or loaded is None else max(0.0, one.expires - now)
    return ResidentSeen(
        name=one.wanted.manifest.name,
        manifest_id=one.wanted.manifest.id,
        state=one.state.value,
        slots=one.slots,
        num_ctx=loaded.num_ctx if loaded else one.num_ctx,
        target=_target(one),
        drafter=_drafter(one, scheduler.why_set_aside(one)),
        num_ctx_why=one.fit.num_ctx_why if one.fit else "",
        users=len(one.users),
        queued=len(scheduler.queue.of(one.wanted.name)),
        keep_alive_s=one.keep_alive_s,
        expires_in_s=left_s,
        progress=_progress(one) if progress and loaded is None else None,
        kv_bytes=ByteCount(measured.kv_bytes if measured else loaded.kv_bytes if loaded else 0),
        prefix_bytes=ByteCount(one.prefix_bytes),
        depth=draft.depth if draft else None,
        acceptance=draft.per_position if draft else (),
        tokens_per_second=one.heard.tokens_per_second,
        crashes=_crashes(scheduler.breaker, one, now, offset),
        pid=one.runner.pid if one.runner else None,
        dtype=loaded.dtype if loaded else "",
        notes=loaded.notes if loaded else (),
    )


def _progress(one: Resident) -> LoadProgress | None:
    told = one.heard.progress
    return LoadProgress(told.phase, told.done, told.total) if told else None


def _target(one: Resident) -> TargetSeen:
    loaded, fit = one.runner.loaded if one.runner else None, one.fit
    why = fit.why if fit else ""
    if loaded is None:
        nbytes = fit.estimate.target_weights if fit else 0
        return TargetSeen("", ByteCount(nbytes), why, _layers(one))
    told = next((p.why for p in loaded.placement if p.what == "target" and p.why), "")
    device = fit.where if fit and fit.split else loaded.device
    return TargetSeen(device, ByteCount(loaded.target_bytes), why or told, _layers(one))


def _layers(one: Resident) -> tuple[LayersSeen, ...]:
    """Which layers of a split target are where."""
    told, begin = [], 0
    for device, count in one.fit.split if one.fit else ():
        target, kv = (_placed(one, what, device) for what in ("target", "kv"))
        told.append(LayersSeen(device, begin, count, target, kv))
        begin += count
    return tuple(told)


def _placed(one: Resident, what: Literal["target", "kv"], device: str) -> ByteCount:
    """Bytes of a part on one device of a split: as the runner says, else as estimated."""
    assert one.fit is not None
    placement = one.runner.loaded.placement if one.runner else ()
    found = [part.nbytes for part in placement if (part.what, part.device) == (what, device)]
    return ByteCount(found[0] if found else getattr(one.fit.shares[device], what))


def _drafter(one: Resident, aside: str | None) -> DrafterSeen:
    loaded, state = one.runner.loaded if one.runner else None, one.drafter
    there = state is Drafter.ATTACHED
    nbytes = 0
    if there and loaded is not None:
        nbytes = one.measured.drafter_bytes if one.measured else loaded.drafter_bytes
    why = one.drafter_why or (aside or "" if state is Drafter.SET_ASIDE else "")
    device = loaded.device if loaded and there else ""
    return DrafterSeen(_STATES[state], device, ByteCount(nbytes), why)


def _crashes(breaker: CrashBreaker, one: Resident, now: float, offset: float) -> CrashSeen | None:
    record = breaker.record(one.wanted.name, now)
    return None if record is None else _crash(record, now, offset)


def _crash(record: CrashRecord, now: float, offset: float) -> CrashSeen:
    open_until = record.open_until + offset if record.open_until > now else None
    return CrashSeen(record.crashes, open_until, record.reason, record.log_tail)


def _budgets(
    machine: Machine | None, residents: Iterable[Resident], rules: Rules, spare: int
) -> tuple[BudgetSeen, ...]:
    if machine is None:
        return ()
    ours: dict[str, Ours] = {HOST: Ours(spare=ByteCount(spare))}
    for one in residents:
        for budget, part in _parts(one).items():
            ours[budget] = _sum(ours.get(budget, Ours()), part)
    return tuple(_budget(machine, budget, rules, ours) for budget in machine.budgets)


def _budget(machine: Machine, budget: Budget, rules: Rules, ours: dict[str, Ours]) -> BudgetSeen:
    names = [d.name for id in budget.devices if (d := machine.device(id)) and d.name]
    notes = tuple(d.note for id in budget.devices if (d := machine.device(id)) and d.note)
    return BudgetSeen(
        budget.id,
        ", ".join(names) or budget.id,
        budget.total,
        budget.free,
        ByteCount(reserve_of(budget, rules.reserve)),
        ours.get(budget.id, Ours()),
        notes,
    )


def _parts(one: Resident) -> dict[str, Ours]:
    """What a pair takes of each budget: its parts lie on its device, the rest is what is left."""
    whole = holds(one)
    if not whole or one.fit is None:
        return {}
    device = next(iter(one.fit.takes))
    told, there = one.fit.estimate, one.drafter is Drafter.ATTACHED
    if (m := one.measured) is not None:
        parts = (m.target_bytes, m.drafter_bytes, m.kv_bytes, m.prefix_bytes)
    elif one.runner is not None:
        loaded = one.runner.loaded
        parts = (loaded.target_bytes, loaded.drafter_bytes if there else 0, loaded.kv_bytes, 0)
    else:
        parts = (told.target_weights, told.drafter_weights if there else 0, told.kv, 0)
    found = {device: Ours(*map(ByteCount, parts))}
    if one.fit.split:
        found = _split_parts(one, found[device])
    return {
        budget: replace(ours, other=ByteCount(max(0, whole.get(budget, 0) - ours.total)))
        for budget, ours in (dict.fromkeys(whole, Ours()) | found).items()
    }


def _split_parts(one: Resident, whole: Ours) -> dict[str, Ours]:
    """The same parts by device: the drafter is beside the last layers."""
    assert one.fit is not None
    prefixes = prefixes_of(one, whole.prefixes)
    return {
        device: Ours(
            target=_placed(one, "target", device),
            drafter=whole.drafter if device == one.fit.device else ByteCount(0),
            kv=_placed(one, "kv", device),
            prefixes=ByteCount(prefixes.get(device, 0)),
        )
        for device in one.fit.devices
    }


def _sum(one: Ours, other: Ours) -> Ours:
    return Ours(
        ByteCount(one.target + other.target),
        ByteCount(one.drafter + other.drafter),
        ByteCount(one.kv + other.kv),
        ByteCount(one.prefixes + other.prefixes),
        ByteCount(one.spare + other.spare),
        ByteCount(one.other + other.other),
    )
