"""A machine's NVIDIA driver as the binding shows it: GPUs that are divided, lost and come back."""

from dataclasses import dataclass, field
from types import SimpleNamespace

GIB = 1 << 30


class NVMLError(Exception):
    """As the binding raises it."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


@dataclass
class Gpu:
    """One GPU, or one MIG instance."""

    uuid: str
    total: int = 24 * GIB
    free: int = 20 * GIB
    name: str | bytes = "GeForce"
    instances: "list[Gpu] | None" = None  # divided
    places: int = 7  # of instances
    error: int | None = None  # of every question about it
    memory_error: int | None = None


@dataclass
class FakeNvml:
    """The functions of the binding that are used; `asked` counts sessions."""

    gpus: list[Gpu] = field(default_factory=list)
    driver: int | None = None  # error of nvmlInit
    sessions: int = 0
    is_open: bool = False
    NVMLError = NVMLError

    def nvmlInit(self) -> None:
        if self.driver is not None:
            raise NVMLError(self.driver)
        self.sessions += 1
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        if self.driver is not None:
            raise NVMLError(self.driver)
        if not self.is_open:
            raise NVMLError(1)
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        return _alive(self.gpus[index])

    def nvmlDeviceGetName(self, gpu: Gpu) -> str | bytes:
        return _alive(gpu).name

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> str:
        return _alive(gpu).uuid

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> SimpleNamespace:
        if gpu.memory_error is not None:
            raise NVMLError(gpu.memory_error)
        return SimpleNamespace(total=gpu.total, free=gpu.free, used=gpu.total - gpu.free)

    def nvmlDeviceGetMigMode(self, gpu: Gpu) -> list[int]:
        if _alive(gpu).instances is None:
            raise NVMLError(3)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: Gpu) -> int:
        return gpu.places

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Gpu, index: int) -> Gpu:
        if index >= len(gpu.instances or ()):
            raise NVMLError(6)
        return (gpu.instances or [])[index]


def _alive(gpu: Gpu) -> Gpu:
    if gpu.error is not None:
        raise NVMLError(gpu.error)
    return gpu
