"""What a look at the machine's memory gives: devices, the host, and one budget for each memory."""

from dataclasses import dataclass
from typing import Literal

from gemmad.core import ByteCount

DeviceKind = Literal["cuda", "rocm", "mps", "cpu"]

HOST = "cpu"  # id of the host as a device, and of its budget


@dataclass(frozen=True, slots=True)
class Device:
    """Something a pair can run on, and its memory now."""

    id: str  # as torch names it: cuda:0, mps, cpu
    kind: DeviceKind
    name: str
    total: ByteCount
    free: ByteCount  # what every program together leaves
    unified: bool = False  # its memory is the host's
    uuid: str = ""  # what CUDA_VISIBLE_DEVICES names it by, whatever the order
    note: str = ""  # why it cannot be used

    @property
    def is_usable(self) -> bool:
        """Whether a pair may be put here."""
        return not self.note


@dataclass(frozen=True, slots=True)
class Host:
    """The system's memory, as far as this process may use it."""

    total: ByteCount
    available: ByteCount  # without swapping, and within the limits of our control group
    # 0 at ease .. 100; Linux: share of the last 10 s in which some task waited for memory; macOS:
    # level normal 0, warning 50, critical 100; None: nobody says.
    pressure: float | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """One memory and everything that takes from it."""

    id: str  # of its device; `HOST` for the host's, unified devices with it
    total: ByteCount
    free: ByteCount
    devices: tuple[str, ...]  # ids


@dataclass(frozen=True, slots=True)
class Machine:
    """One reading."""

    devices: tuple[Device, ...]  # the best first; the host is the last
    host: Host
    notes: tuple[str, ...] = ()  # what a person should know: a driver that does not answer

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Every memory once: each device's own, then the host's."""
        own = [
            Budget(device.id, device.total, device.free, (device.id,))
            for device in self.devices
            if not device.unified
        ]
        shared = tuple(device.id for device in self.devices if device.unified)
        return (*own, Budget(HOST, self.host.total, self.host.available, shared))

    def device(self, id: str) -> Device | None:
        """The device of that id; `cuda` alone is the first of its kind."""
        named = (d for d in self.devices if d.id == id or d.id.partition(":")[0] == id)
        return next(named, None)

    def budget_of(self, id: str) -> Budget | None:
        """The memory that a device takes from."""
        found = self.device(id)
        if found is None:
            return None
        return next(budget for budget in self.budgets if found.id in budget.devices)

    @property
    def accelerators(self) -> tuple[Device, ...]:
        """Usable devices other than the host, the best first."""
        return tuple(d for d in self.devices if d.kind != "cpu" and d.is_usable)

    @property
    def joined(self) -> tuple[Device, ...]:
        """GPUs that one process can use together: of a MIG's instances it sees only one."""
        own = [d for d in self.accelerators if not (d.unified or d.uuid.startswith("MIG-"))]
        return tuple(d for d in own if d.kind in ("cuda", "rocm") and d.kind == own[0].kind)
