"""The ways in which a pair can be loaded on this machine, best first; pure.

What is given up, before a pair does not fit, is ordered: first a smaller context, if the request
did not name one, then the drafter, then slots. Each of these is a rank of its own, tried on every
device of the tier. Tiers, each with all of those ranks:

    0  one GPU, or the only device that there is
    1  the same with weights packed on load        only where the user allowed it
    2  layers over several GPUs                    only where a backend can
    3  the CPU of a machine that has a GPU         only where the user allowed it

A GPU that was lost is no reason to use the CPU: nothing fits then, and the error says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from gemmad.core import ByteCount
from gemmad.memory.estimate import Estimate, Setting
from gemmad.memory.nvml import LOST
from gemmad.memory.parts import CpuKind
from gemmad.memory.readings import HOST, Device, Machine
from gemmad.residency.budgets import PLACES, Takes, Way
from gemmad.residency.resident import Wanted
from gemmad.wire import Quantize

LEAST_CTX = 2048
_STEP = 1 << 28  # free memory is told in these, so that every reading need not be computed anew

Weigh = Callable[[Wanted, Setting], Estimate]  # what a load takes, as computed or as it was seen
Where = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the user's settings allow."""

    device: Where = "auto"
    slots: int = 1
    quantize: Quantize | None = None  # when a pair does not fit otherwise
    cpu: bool = False  # beside a GPU that has no room
    split: bool = False  # whether any backend runs layers on several GPUs
    cpu_kind: CpuKind = "half"
    fused: bool = True


class Fit(NamedTuple):
    """One way of loading: what the load frame says, and what it takes."""

    device: str
    kind: str
    setting: Setting
    estimate: Estimate
    takes: Takes
    drafter_takes: Takes  # of `takes`, unless it is left out
    split: tuple[tuple[str, int], ...] = ()
    why: str = ""  # it is loaded so and not as asked; empty: as asked
    num_ctx_why: str = ""


def ways(wanted: Wanted, machine: Machine, allowed: Allowed, weigh: Weigh) -> Iterator[Way]:
    """Every way, sorted by tier and rank; nothing is computed before it is asked for."""
    for tier, (devices, quantize, why) in enumerate(_tiers(wanted, machine, allowed)):
        for rank, given in enumerate(_given_up(wanted, allowed.slots)):
            for device in devices:
                fit = _fit(wanted, machine, device, allowed, given, quantize, weigh)
                fit = fit._replace(why="; ".join(filter(None, (why, fit.why))))
                yield Way({**fit.takes, PLACES: 1}, rank, tier, fit)


def unusable(machine: Machine, allowed: Allowed) -> str:
    """Why there is no device at all; empty: there is one."""
    if any(devices for devices, _, _ in _tiers_of(machine, allowed, quantize=None)):
        return ""
    notes = [f"{d.id}: {d.note}" for d in machine.devices if d.note]
    told = "; ".join((*notes, *machine.notes))
    return told or f"there is no device '{allowed.device}' on this machine"


_Tier = tuple[tuple[Device, ...], Quantize | None, str]


def _tiers(wanted: Wanted, machine: Machine, allowed: Allowed) -> Sequence[_Tier]:
    packed = allowed.quantize if wanted.quantize is None and not wanted.exact_weights else None
    return _tiers_of(machine, allowed, packed)


def _tiers_of(machine: Machine, allowed: Allowed, quantize: Quantize | None) -> list[_Tier]:
    gpus = _gpus(machine, allowed)
    lost = any(d.note.startswith(LOST) for d in machine.devices)
    host = tuple(d for d in machine.devices if d.id == HOST)
    if allowed.device == "cpu" or (allowed.device == "auto" and not gpus and not lost):
        # NOTE: a GPU that torch cannot use is as good as none, but its owner is told.
        notes = [f"{d.name}: {d.note}" for d in machine.devices if d.note]
        first: _Tier = (host, None, "; ".join(notes) if allowed.device == "auto" else "")
        packed = (host, quantize, f"weights are packed to {quantize}: they do not fit otherwise")
        return [first, packed] if quantize else [first]
    tiers: list[_Tier] = [(gpus, None, "")]
    if quantize:
        why = f"weights are packed to {quantize}: they do not fit otherwise"
        tiers.append((gpus, quantize, why))
    if allowed.cpu and allowed.device == "auto":
        why = f"gpu lost: {_lost(machine)}" if lost and not gpus else "no GPU has room for it"
        tiers.append((host, None, f"on the CPU, as the settings allow: {why}"))
    return tiers


def _gpus(machine: Machine, allowed: Allowed) -> tuple[Device, ...]:
    if allowed.device == "cpu":
        return ()
    kinds = {"auto": ("cuda", "rocm", "mps"), "cuda": ("cuda", "rocm"), "mps": ("mps",)}
    usable = [d for d in machine.accelerators if d.kind in kinds[allowed.device]]
    return tuple(sorted(usable, key=lambda device: -device.free))


def _lost(machine: Machine) -> str:
    return next(d.note for d in machine.devices if d.note.startswith(LOST))


class _Given(NamedTuple):
    """What is given up in a rank."""

    num_ctx: int
    drafter: bool
    slots: int


def _given_up(wanted: Wanted, slots: int) -> Iterator[_Given]:
    has_drafter = wanted.manifest.drafter is not None and not wanted.without_drafter
    for count in _halves(slots, 1):
        for drafter in (True, False) if has_drafter else (False,):
            contexts = [wanted.num_ctx] if wanted.exact else _halves(wanted.num_ctx, LEAST_CTX)
            for num_ctx in contexts:
                yield _Given(num_ctx, drafter, count)


def _halves(most: int, least: int) -> Iterator[int]:
    """`most`, its half and so on, down to `least`; at least `most` itself."""
    yield most
    while most > least:
        most = max(least, most // 2)
        yield most


def _fit(
    wanted: Wanted,
    machine: Machine,
    device: Device,
    allowed: Allowed,
    given: _Given,
    quantize: Quantize | None,
    weigh: Weigh,
) -> Fit:
    setting = Setting(
        num_ctx=given.num_ctx,
        slots=given.slots,
        kind=device.kind,
        drafter=given.drafter,
        quantize=wanted.quantize or quantize,
        draft_quantize=wanted.draft_quantize,
        deterministic=wanted.deterministic,
        unified=device.unified,
        cpu=allowed.cpu_kind,
        free=device.free // _STEP * _STEP if device.kind == "cpu" else None,
        fused=allowed.fused,
    )
    took = weigh(wanted, setting)
    budget = machine.budget_of(device.id)
    assert budget is not None
    takes = {budget.id: int(took.device)}
    if took.host_only:
        takes[HOST] = takes.get(HOST, 0) + took.host_only
    drafter = _drafter(wanted, setting, took, weigh)
    why = _why(wanted, allowed, given)
    smaller = given.num_ctx < wanted.num_ctx
    num_ctx_why = f"memory has no room for {wanted.num_ctx}" if smaller else ""
    return Fit(
        device.id,
        device.kind,
        setting,
        took,
        takes,
        {budget.id: drafter} if drafter else {},
        why=why,
        num_ctx_why=num_ctx_why,
    )


def _drafter(wanted: Wanted, setting: Setting, took: Estimate, weigh: Weigh) -> int:
    """What the drafter takes there, though it be left out."""
    if wanted.manifest.drafter is None:
        return 0
    return int((took if setting.drafter else weigh(wanted, replace(setting, drafter=True))).drafter)


def _why(wanted: Wanted, allowed: Allowed, given: _Given) -> str:
    told = []
    if given.num_ctx < wanted.num_ctx:
        told.append(f"a context of {given.num_ctx} instead of {wanted.num_ctx}")
    has_drafter = wanted.manifest.drafter is not None and not wanted.without_drafter
    if has_drafter and not given.drafter:
        told.append("without the drafter, until memory has room")
    if given.slots < allowed.slots:
        told.append(f"{given.slots} requests at once instead of {allowed.slots}")
    return ", ".join(told)


def of_files(target_bytes: int, drafter_bytes: int, *, drafter: bool, unified: bool) -> Estimate:
    """What a pair whose files cannot be read here takes at least: its files' bytes."""
    zero = ByteCount(0)
    return Estimate(
        target_weights=ByteCount(target_bytes),
        drafter_weights=ByteCount(drafter_bytes if drafter else 0),
        kv=zero, drafter_state=zero, workspace=zero, graphs=zero, media=zero, host=zero,
        prefixes=zero, mapped=zero, unified=unified,
    )  # fmt: skip
