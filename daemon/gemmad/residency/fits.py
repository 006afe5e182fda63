"""The ways in which a pair can be loaded on this machine, best first; pure.

What is given up, before a pair does not fit, is ordered: first a smaller context, if the request
did not name one, then the drafter, then slots. Each of these is a rank of its own, tried on every
device of the tier. Tiers, each with all of those ranks:

    0  one GPU, or the only device that there is
    1  the same with weights packed on load        only where the user allowed it
    2  layers over several GPUs, see `dealing.py`
    3  the same with weights packed on load        only where the user allowed it
    4  the CPU of a machine that has a GPU         only where the user allowed it

A GPU that was lost is no reason to use the CPU: nothing fits then, and the error says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from gemmad.core import ByteCount
from gemmad.memory.estimate import Estimate, Setting
from gemmad.memory.nvml import LOST
from gemmad.memory.parts import CpuKind
from gemmad.memory.readings import HOST, Device, Machine
from gemmad.memory.split import Deal, Share, SplitBytes, shares
from gemmad.residency.budgets import PLACES, Takes, Way, spread
from gemmad.residency.dealing import deal, nearest
from gemmad.residency.resident import Wanted
from gemmad.wire import Quantize

LEAST_CTX = 2048
_STEP = 1 << 28  # free memory is told in these, so that every reading need not be computed anew

Weigh = Callable[[Wanted, Setting], Estimate]  # what a load takes, as computed or as it was seen
# The same by layers; None: nobody knows its layers.
WeighLayers = Callable[[Wanted, Setting, tuple[str, ...]], SplitBytes | None]
Rooms = Callable[[], Sequence[Takes]]  # see `dealing.levels`; asked for when layers are split
Where = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the user's settings allow."""

    device: Where = "auto"
    slots: int = 1
    quantize: Quantize | None = None  # when a pair does not fit otherwise
    cpu: bool = False  # beside a GPU that has no room
    cpu_kind: CpuKind = "half"
    fused: bool = True


class Fit(NamedTuple):
    """One way of loading: what the load frame says, and what it takes."""

    device: str  # where the head is
    kind: str
    setting: Setting
    estimate: Estimate
    takes: Takes  # the head's device first
    drafter_takes: Takes  # of `takes`, unless it is left out
    split: tuple[tuple[str, int], ...] = ()
    why: str = ""  # it is loaded so and not as asked; empty: as asked
    num_ctx_why: str = ""
    shares: Mapping[str, Share] = {}  # by device, of a split

    @property
    def devices(self) -> tuple[str, ...]:
        """All on which it is, in the layers' order."""
        return tuple(id for id, _ in self.split) or (self.device,)

    @property
    def where(self) -> str:
        """The devices in one word."""
        return "+".join(self.devices)

    def spread(self, nbytes: int) -> Takes:
        """Bytes of kept keys and values by budget."""
        kv = {device: share.kv for device, share in self.shares.items()}
        return spread(nbytes, kv or {next(iter(self.takes), HOST): 1})


@dataclass(frozen=True, slots=True)
class Scales:
    """What tells how much pairs take."""

    whole: Weigh
    layers: WeighLayers = lambda *_: None


def ways(
    wanted: Wanted,
    machine: Machine,
    allowed: Allowed,
    scales: Scales,
    rooms: Rooms = tuple,
) -> Iterator[Way]:
    """Every way, sorted by tier and rank; nothing is computed before it is asked for."""
    for tier, found in enumerate(_tiers(wanted, machine, allowed)):
        for rank, given in enumerate(_given_up(wanted, allowed.slots)):
            for fit in _fits(wanted, machine, found, allowed, given, scales, rooms):
                fit = fit._replace(why="; ".join(filter(None, (found.why, fit.why))))
                yield Way({**fit.takes, PLACES: 1}, rank, tier, fit)


def unusable(machine: Machine, allowed: Allowed) -> str:
    """Why there is no device at all; empty: there is one."""
    if any(tier.devices for tier in _tiers_of(machine, allowed, quantize=None)):
        return ""
    notes = [f"{d.id}: {d.note}" for d in machine.devices if d.note]
    told = "; ".join((*notes, *machine.notes))
    return told or f"there is no device '{allowed.device}' on this machine"


class _Tier(NamedTuple):
    devices: tuple[Device, ...]
    quantize: Quantize | None = None
    why: str = ""
    splits: bool = False  # over these devices; else each of them is a way of its own


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
        first = _Tier(host, why="; ".join(notes) if allowed.device == "auto" else "")
        packed = _Tier(host, quantize, _packed_why(quantize))
        return [first, packed] if quantize else [first]
    tiers = [_Tier(gpus)]
    if quantize:
        tiers.append(_Tier(gpus, quantize, _packed_why(quantize)))
    if len(several := tuple(gpu for gpu in gpus if gpu in machine.joined)) > 1:
        tiers.append(_Tier(several, splits=True))
        if quantize:
            tiers.append(_Tier(several, quantize, _packed_why(quantize), splits=True))
    if allowed.cpu and allowed.device == "auto":
        why = f"gpu lost: {_lost(machine)}" if lost and not gpus else "no GPU has room for it"
        tiers.append(_Tier(host, why=f"on the CPU, as the settings allow: {why}"))
    return tiers


def _packed_why(quantize: Quantize | None) -> str:
    return f"weights are packed to {quantize}: they do not fit otherwise"


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
                if num_ctx > wanted.more_than:
                    yield _Given(num_ctx, drafter, count)


def _halves(most: int, least: int) -> Iterator[int]:
    """`most`, its half and so on, down to `least`; at least `most` itself."""
    yield most
    while most > least:
        most = max(least, most // 2)
        yield most


def _fits(
    wanted: Wanted,
    machine: Machine,
    tier: _Tier,
    allowed: Allowed,
    given: _Given,
    scales: Scales,
    rooms: Rooms,
) -> Iterator[Fit]:
    """One way on each of the tier's devices, or several of splitting layers over them."""
    for device in tier.devices[: 1 if tier.splits else None]:
        setting = _setting(wanted, device, allowed, given, tier)
        if tier.splits:
            yield from _splits(wanted, tier.devices, setting, scales, rooms, allowed)
        else:
            yield _on_one(wanted, machine, device, setting, scales.whole, allowed)


def _setting(
    wanted: Wanted, device: Device, allowed: Allowed, given: _Given, tier: _Tier
) -> Setting:
    return Setting(
        num_ctx=given.num_ctx,
        slots=given.slots,
        kind=device.kind,
        drafter=given.drafter,
        quantize=wanted.quantize or tier.quantize,
        draft_quantize=wanted.draft_quantize,
        deterministic=wanted.deterministic,
        unified=device.unified,
        cpu=allowed.cpu_kind,
        free=device.free // _STEP * _STEP if device.kind == "cpu" else None,
        fused=allowed.fused,
    )


def _on_one(
    wanted: Wanted,
    machine: Machine,
    device: Device,
    setting: Setting,
    weigh: Weigh,
    allowed: Allowed,
) -> Fit:
    took = weigh(wanted, setting)
    budget = machine.budget_of(device.id)
    assert budget is not None
    takes = {budget.id: int(took.device)}
    if took.host_only:
        takes[HOST] = takes.get(HOST, 0) + took.host_only
    drafter = 0
    if wanted.manifest.drafter is not None:  # also of one that is left out: it may come back
        whole = took if setting.drafter else weigh(wanted, replace(setting, drafter=True))
        drafter = int(whole.drafter)
    parts = {budget.id: drafter} if drafter else {}
    fit = Fit(device.id, device.kind, setting, took, takes, parts)
    return _explained(fit, wanted, allowed)


def _splits(
    wanted: Wanted,
    devices: Sequence[Device],
    setting: Setting,
    scales: Scales,
    rooms: Rooms,
    allowed: Allowed,
) -> Iterator[Fit]:
    """A way for every room that there is or may come: layers dealt by it, each deal once.

    Where there will be no room, the way that lacks little: whoever is refused learns how much.
    """
    ids = tuple(device.id for device in devices)
    levels = [{id: room.get(id, 0) for id in ids} for room in rooms()]
    if not levels or (found := scales.layers(wanted, setting, ids)) is None:
        return
    deals = [deal(found, levels[-1])]  # by the most room: where that is too little, all is
    if deals[0]:
        deals = [*(deal(found, level) for level in levels[:-1]), *deals]
    else:
        deals = [nearest(found, levels[-1])]
    took = scales.whole(wanted, setting)
    for dealt in dict.fromkeys(one for one in deals if one and len(one.devices) > 1):
        mine = shares(found, dealt)
        takes = {id: share.total for id, share in mine.items()}
        fit = Fit(
            dealt.devices[-1],
            setting.kind,
            setting,
            took,
            {**takes, HOST: int(took.host_only)},
            _split_drafter(wanted, setting, scales, dealt),
            dealt.split,
            shares=mine,
        )
        yield _explained(fit, wanted, allowed)


def _split_drafter(wanted: Wanted, setting: Setting, scales: Scales, dealt: Deal) -> Takes:
    """What the drafter takes beside the last layers, though it be left out."""
    if wanted.manifest.drafter is None:
        return {}
    found = scales.layers(wanted, replace(setting, drafter=True), dealt.devices)
    return {dealt.devices[-1]: found.drafter} if found and found.drafter else {}


def _explained(fit: Fit, wanted: Wanted, allowed: Allowed) -> Fit:
    """The same with what is given up in it, and where its layers are."""
    setting, told = fit.setting, []
    if fit.split:
        told.append(f"no single GPU has room for it: {_places(fit)}")
    if given := _why(wanted, allowed, setting):
        told.append(given)
    smaller = setting.num_ctx < wanted.num_ctx
    num_ctx_why = f"memory has no room for {wanted.num_ctx}" if smaller else ""
    return fit._replace(why="; ".join(told), num_ctx_why=num_ctx_why)


def _places(fit: Fit) -> str:
    told, begin = [], 0
    for id, count in fit.split:
        told.append(f"layers {begin} to {begin + count - 1} on {id}")
        begin += count
    drafter = ", head and drafter" if fit.setting.drafter and fit.drafter_takes else " and head"
    return f"{', '.join(told)} with embeddings{drafter}"


def _why(wanted: Wanted, allowed: Allowed, given: Setting) -> str:
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
