"""A machine with one GPU and runners that are numbers: the scheduler's whole world, with its clock.

Runners take what they take when their load ends, which may be less than was estimated, or more, and
then they run out of memory. Whatever they are asked they do when the test lets them, or never.
"""

from dataclasses import dataclass, replace

from gemmad.api.errors import GemmaError, LoadFailed, RunnerCrashed, WillNotFit
from gemmad.core import ByteCount, Digest
from gemmad.memory.readings import Machine
from gemmad.residency.budgets import Kind
from gemmad.residency.placing import WaysOf
from gemmad.residency.resident import Drafter, Resident, State, Waiter
from gemmad.residency.rules import Rules
from gemmad.residency.scheduler import Scheduler
from gemmad.wire import Measured
from tests.fakes.machines import machine_of
from tests.fakes.residency_fakes import RecordingEffects, StubRunner, sized, waiter, wanted

GPU = "cuda:0"
TOTAL, RESERVE = 1000, 50
TARGET, DRAFTER, ALONE = 300, 60, 200  # of a pair; of its smallest way
LOOK_S = 1.0


@dataclass(slots=True)
class Process:
    """What a runner holds."""

    target: int
    drafter: int
    prefixes: int = 0

    @property
    def nbytes(self) -> int:
        return self.target + self.drafter + self.prefixes


class World(RecordingEffects):
    """The scheduler's effects, carried out on numbers."""

    def __init__(
        self, ways: WaysOf | None = None, set_aside: dict[Digest, str] | None = None, **rules
    ) -> None:
        super().__init__()
        defaults = {"max_loaded": 3, "max_queue": 6, "keep_alive_s": 60.0, "queue_s": 500.0}
        self.rules = Rules(**(defaults | {"reserve": RESERVE} | rules))
        ways = ways or WaysOf(sized(TARGET, DRAFTER, smaller=(TARGET, ALONE)), self.unusable)
        self.scheduler = Scheduler(self, self.rules, ways, set_aside or {})
        self.processes: dict[Resident, Process] = {}
        self.outside = 0
        self.lost = False
        self.now = 0.0
        self.alive: list[Waiter] = []  # in order: hypothesis replays
        self.overdrawn = ""  # a load that memory has no room for
        self.cut_short: list[str] = []  # busy pairs stopped before their time

    # --- what the scheduler does ---

    def load(self, resident: Resident) -> None:
        super().load(resident)
        assert resident.fit is not None
        pending = sum(r.fit.takes[GPU] for r in self.loading)
        left = TOTAL - RESERVE - self.outside - self.held - pending
        if left < 0:
            self.overdrawn = f"{resident.wanted.name} at {self.now}: {left}"

    def stop(self, resident: Resident) -> None:
        super().stop(resident)
        if resident.users and self.now < resident.stop_by and not self.scheduler._closing:
            self.cut_short.append(str(resident.wanted.name))

    # --- what the test does ---

    def ask(self, name, keep=None, priority="interactive", **what) -> Waiter:
        asking = waiter(wanted(name, **what), keep, priority)
        self.alive.append(asking)
        self.scheduler.requested(asking, self.now)
        self.settle()
        return asking

    def leave(self, asking: Waiter) -> None:
        self.alive.remove(asking)
        self.scheduler.left(asking, self.now)
        self.settle()

    def load_ends(self, outcome: str, took: float = 1.0) -> None:
        """The oldest load: ready, failed, oom, crashed, or starved: the system killed it."""
        resident = self.loading.pop(0)
        if resident in self.stopping and outcome != "ready":
            return  # a cancelled load says nothing
        if outcome == "ready":
            self._ready(resident, took)
        else:
            self.scheduler.load_failed(resident, _failures()[outcome], self.now)
        self.settle()

    def _ready(self, resident: Resident, took: float) -> None:
        with_drafter = resident.fit.setting.drafter
        whole = resident.fit.takes[GPU]
        drafter = DRAFTER if with_drafter else 0
        process = Process(int((whole - drafter) * took), drafter)
        self.processes[resident] = process
        self.scheduler.loaded(resident, StubRunner(with_drafter), self.now)
        if resident.state is State.READY:
            self.scheduler.measured(resident, _measured(process), self.now)

    def stop_ends(self) -> None:
        resident = self.stopping.pop(0)
        if resident in self.loading:
            self.loading.remove(resident)
        self.processes.pop(resident, None)
        self.scheduler.gone(resident, None, self.now)
        self.settle()

    def crash(self, resident: Resident, code: int) -> None:
        self.processes.pop(resident, None)
        self.scheduler.gone(resident, RunnerCrashed("boom", exit_code=code), self.now)
        self.settle()

    def give_ends(self) -> None:
        """The oldest reclaim or detach."""
        if self.reclaiming:
            resident, nbytes = self.reclaiming.pop(0)
            kind = Kind.RECLAIM
        else:
            resident, nbytes, kind = self.detaching.pop(0), 0, Kind.DETACH
        process = self.processes.get(resident)
        if process is None:
            return
        process.prefixes = max(0, process.prefixes - nbytes)
        if kind is Kind.DETACH:
            process.drafter = 0
        self.scheduler.settled(resident, kind, _measured(process), self.now)
        self.settle()

    def attach_ends(self, error: GemmaError | None) -> None:
        resident = self.attaching.pop(0)
        process = self.processes.get(resident)
        if process is None:
            return
        if error is None:
            process.drafter = DRAFTER
            self.scheduler.settled(resident, None, _measured(process), self.now)
        else:
            self.scheduler.attach_failed(resident, error, self.now)
        self.settle()

    def grow(self, resident: Resident, nbytes: int) -> None:
        """Kept prompts grow."""
        if process := self.processes.get(resident):
            process.prefixes += min(nbytes, max(0, self.free))
            self.scheduler.measured(resident, _measured(process), self.now)

    def wait(self, seconds: float) -> None:
        """Time passes, with every tick that is due, and a look at its end."""
        until = self.now + seconds
        while (due := self.scheduler.next_tick(self.now)) <= until:
            self.now = max(self.now, due)
            self.scheduler.tick(self.now)
            self.settle()
            if self.scheduler.next_tick(self.now) <= self.now:
                self.now += 0.01  # what it waits for cannot come in no time
        self.now = max(self.now, until)
        self.look()

    def look(self) -> None:
        self.scheduler.looked(self.machine, 0, self.now)
        self.settle()

    def settle(self) -> None:
        """The machine is looked at as often as the scheduler wants."""
        for _ in range(20):
            if not self.scheduler.wants_look:
                return
            self.scheduler.looked(self.machine, 0, self.now)
        raise AssertionError("it looks for ever")

    # --- what there is ---

    @property
    def held(self) -> int:
        return sum(process.nbytes for process in self.processes.values())

    @property
    def free(self) -> int:
        return TOTAL - self.outside - self.held

    @property
    def machine(self) -> Machine:
        made = machine_of(1 << 40, TOTAL, note="gpu lost: 999" if self.lost else "")
        gpu, *others = made.devices
        free = ByteCount(max(0, self.free))
        return replace(made, devices=(replace(gpu, free=free), *others))

    def unusable(self, machine: Machine) -> str:
        return machine.devices[0].note


def _failures() -> dict[str, GemmaError]:
    return {
        "failed": LoadFailed("no"),
        "oom": WillNotFit("out of memory"),
        "crashed": RunnerCrashed("boom", exit_code=-11),
        "starved": RunnerCrashed("boom", exit_code=-9, out_of_memory=True),
    }


def _measured(process: Process) -> Measured:
    return Measured(
        device_bytes=process.nbytes,
        host_bytes=0,
        target_bytes=process.target,
        drafter_bytes=process.drafter,
        kv_bytes=0,
        prefix_bytes=process.prefixes,
        peak_device_bytes=process.nbytes,
    )


def ready(world: World) -> list[Resident]:
    """The pairs that answer."""
    return [r for r in world.scheduler.residents if r.state is State.READY and r.usable]


def faults(world: World) -> list[str]:
    """What must never be, of the state as it is."""
    found = [world.overdrawn] if world.overdrawn else []
    found += [f"{name} was cut short" for name in world.cut_short]
    residents = list(world.scheduler.residents)
    if len(residents) > world.rules.max_loaded:
        found.append(f"{len(residents)} pairs")
    for r in residents:
        found += _faults_of(r, world.now)
    for asking in world.alive:
        homes = [r for r in residents if asking in r.users]
        answered = asking in world.granted or asking in world.errors
        if answered == (asking in world.scheduler.queue) or len(homes) > 1:
            found.append(f"{asking.wanted.name} is lost, or in two places")
    return found


def _faults_of(r: Resident, now: float) -> list[str]:
    name, found = r.wanted.name, []
    if r.state is State.READY and r.runner is None:
        found.append(f"{name} is ready without a runner")
    if r.state is State.LOADING and r.load_by == float("inf"):
        found.append(f"{name} may load for ever")
    if r.state is State.DRAINING and (r.stop_by == float("inf") or not r.users):
        found.append(f"{name} may drain for ever")
    if (r.settles_by < float("inf")) != (r.under_way > 0) or r.under_way < 0:
        found.append(f"{name} has {r.under_way} things under way until {r.settles_by}")
    moving = r.drafter in (Drafter.DETACHING, Drafter.ATTACHING)
    if moving and r.state is State.READY and not r.under_way:
        found.append(f"the drafter of {name} is on its way for ever")
    if r.keep_alive_s < 0 or r.prefix_bytes < 0 or r.giving < 0:
        found.append(f"{name} has negative figures")
    return found
