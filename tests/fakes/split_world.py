"""A machine with two GPUs and pairs of numbers, some too large for one: the scheduler's world.

`small` names fit one GPU; `big` ones have ten layers that fit the two together.
"""

from dataclasses import replace

from gemmad.api.errors import GemmaError, RunnerCrashed, WillNotFit
from gemmad.core import ByteCount
from gemmad.memory.parts import LayerBytes
from gemmad.memory.readings import Machine
from gemmad.memory.split import Beside, SplitBytes
from gemmad.residency.budgets import PLACES, Kind
from gemmad.residency.fits import Allowed, Scales, of_files, ways
from gemmad.residency.placing import WaysOf
from gemmad.residency.resident import Resident, Waiter
from gemmad.residency.rules import Rules
from gemmad.residency.scheduler import Scheduler
from gemmad.wire import DeviceTaken, Measured
from tests.fakes.machines import machine_of
from tests.fakes.residency_fakes import RecordingEffects, StubRunner, waiter, wanted

GPUS = ("cuda:0", "cuda:1")
TOTAL, RESERVE = 1000, 50
SMALL, DRAFTER = 300, 60
LAYER, LAYERS, MOVABLE, TABLES, RUNTIME = 130, 10, 8, 100, 30
LOST = "gpu lost: 999"


def is_big(want) -> bool:
    return want.name.short.startswith("big")


def whole(want, setting):
    """What a pair takes of one device."""
    target = RUNTIME + (LAYER * LAYERS + TABLES if is_big(want) else SMALL)
    return of_files(target, DRAFTER, drafter=setting.drafter, unified=False)


def layers(want, setting, devices):
    if not is_big(want):
        return None
    found = (LayerBytes(LAYER - 20, 20),) * LAYERS
    beside = dict.fromkeys(devices, Beside(RUNTIME, RUNTIME))
    return SplitBytes(found, MOVABLE, TABLES, DRAFTER if setting.drafter else 0, beside)


class TwoGpus(RecordingEffects):
    """The scheduler's effects, carried out on numbers."""

    def __init__(self, **rules) -> None:
        super().__init__()
        defaults = {"max_loaded": 3, "max_queue": 6, "keep_alive_s": 60.0, "queue_s": 500.0}
        self.rules = Rules(**(defaults | {"reserve": RESERVE} | rules))
        scales, allowed = Scales(whole, layers), Allowed()
        found = WaysOf(lambda want, machine, rooms: ways(want, machine, allowed, scales, rooms))
        self.scheduler = Scheduler(self, self.rules, found, {})
        self.held: dict[Resident, dict[str, int]] = {}  # bytes by device of those in memory
        self.drafters: dict[Resident, int] = {}
        self.prefixes: dict[Resident, int] = {}
        self.outside = dict.fromkeys(GPUS, 0)
        self.lost: set[str] = set()
        self.now = 0.0
        self.alive: list[Waiter] = []
        self.overdrawn = ""
        self.cut_short: list[str] = []

    def load(self, resident: Resident) -> None:
        super().load(resident)
        for id in resident.fit.devices:
            pending = sum(r.fit.takes.get(id, 0) for r in self.loading)
            if self.free(id) - RESERVE - pending < 0:
                self.overdrawn = f"{resident.wanted.name} on {id} at {self.now}"

    # --- what the test does ---

    def ask(self, name: str, keep: float | None = None) -> Waiter:
        asking = waiter(wanted(name, 2048), keep)
        self.alive.append(asking)
        self.scheduler.requested(asking, self.now)
        self.settle()
        return asking

    def leave(self, asking: Waiter) -> None:
        self.alive.remove(asking)
        self.scheduler.left(asking, self.now)
        self.settle()

    def load_ends(self, error: GemmaError | None = None) -> None:
        resident = self.loading.pop(0)
        if resident in self.stopping and error is not None:
            return
        if error is not None:
            self.scheduler.load_failed(resident, error, self.now)
        else:
            fit = resident.fit
            self.held[resident] = {id: fit.takes[id] for id in fit.devices}
            self.drafters[resident] = DRAFTER if fit.setting.drafter else 0
            self.scheduler.loaded(resident, StubRunner(fit.setting.drafter), self.now)
            self.measure(resident)
        self.settle()

    def measure(self, resident: Resident) -> None:
        self.scheduler.measured(resident, self.measured(resident), self.now)

    def measured(self, resident: Resident) -> Measured:
        takes = self.held[resident]
        parts = tuple(DeviceTaken(id, nbytes, nbytes) for id, nbytes in takes.items())
        return Measured(
            device_bytes=sum(takes.values()), host_bytes=0, target_bytes=0,
            drafter_bytes=self.drafters[resident], kv_bytes=0,
            prefix_bytes=self.prefixes.get(resident, 0), peak_device_bytes=sum(takes.values()),
            devices=parts if len(parts) > 1 else (),
        )  # fmt: skip

    def stop_ends(self) -> None:
        resident = self.stopping.pop(0)
        if resident in self.loading:
            self.loading.remove(resident)
        self.held.pop(resident, None)
        self.scheduler.gone(resident, None, self.now)
        self.settle()

    def crash(self, resident: Resident) -> None:
        self.held.pop(resident, None)
        self.scheduler.gone(resident, RunnerCrashed("boom", exit_code=-9), self.now)
        self.settle()

    def give_ends(self) -> None:
        """The oldest detach."""
        resident = self.detaching.pop(0)
        if resident in self.held:
            self.held[resident][resident.fit.device] -= self.drafters[resident]
            self.drafters[resident] = 0
            told = self.measured(resident)
            self.scheduler.settled(resident, Kind.DETACH, told, self.now)
            self.settle()

    def attach_ends(self, error: WillNotFit | None = None) -> None:
        resident = self.attaching.pop(0)
        if resident not in self.held:
            return
        if error is not None:
            self.scheduler.attach_failed(resident, error, self.now)
        else:
            self.held[resident][resident.fit.device] += DRAFTER
            self.drafters[resident] = DRAFTER
            self.scheduler.settled(resident, None, self.measured(resident), self.now)
        self.settle()

    def grow(self, resident: Resident, nbytes: int) -> None:
        """Kept prompts grow on every device of a pair."""
        for id in self.held[resident]:
            self.held[resident][id] += nbytes
        self.prefixes[resident] = self.prefixes.get(resident, 0) + nbytes * len(self.held[resident])
        self.measure(resident)
        self.look()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.tick(self.now)
        self.look()

    def look(self) -> None:
        self.scheduler.looked(self.machine, 0, self.now)
        self.settle()

    def settle(self) -> None:
        for _ in range(20):
            if not self.scheduler.wants_look:
                return
            self.scheduler.looked(self.machine, 0, self.now)
        raise AssertionError("it looks for ever")

    # --- what there is ---

    def free(self, id: str) -> int:
        return TOTAL - self.outside[id] - sum(takes.get(id, 0) for takes in self.held.values())

    @property
    def machine(self) -> Machine:
        made = machine_of(1 << 40, TOTAL, TOTAL)
        *gpus, host = made.devices
        here = [
            replace(
                gpu,
                free=ByteCount(max(0, self.free(gpu.id))),
                note=LOST if gpu.id in self.lost else "",
            )
            for gpu in gpus
        ]
        return replace(made, devices=(*here, host))


def placed(fit) -> dict[str, int]:
    """Bytes that a way takes of the GPUs."""
    return {id: nbytes for id, nbytes in fit.takes.items() if id not in ("cpu", PLACES) and nbytes}
