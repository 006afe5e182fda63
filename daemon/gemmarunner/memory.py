"""What this process takes: its pair's parts, its devices, and the host."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from gemmad.wire import DeviceTaken, Measured
from gemmarunner.footprint import own_host_bytes
from gemmarunner.tending import LoadDrafter


def device_used(device: str) -> int:
    """Bytes of a CUDA device that all programs take, read without a context; 0: unknown."""
    if not device.startswith("cuda"):
        return 0
    try:
        import pynvml

        pynvml.nvmlInit()
        visible = torch.cuda._raw_device_uuid_nvml() or []  # in torch's order
        handle = pynvml.nvmlDeviceGetHandleByUUID(visible[torch.device(device).index or 0])
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except Exception:  # a driver that does not answer: figures are torch's own then
        return 0


class DeviceMeter:
    """Measures a device from before its first use: what is not torch's is context and graphs."""

    def __init__(self, device: str) -> None:
        self.name = device
        self._device = torch.device(device)
        self._before = device_used(device)
        self._beside = 0

    def settle(self) -> None:
        """See `Meter.settle`."""
        if self._before:
            taken = device_used(self.name) - self._before
            self._beside = max(0, taken - torch.cuda.memory_reserved(self._device))

    @property
    def nbytes(self) -> int:
        """What this process takes of the device now; 0 on a CPU."""
        if self._device.type == "cuda":
            return torch.cuda.memory_reserved(self._device) + self._beside
        if self._device.type == "mps":
            return torch.mps.driver_allocated_memory()
        return 0

    @property
    def peak(self) -> int:
        """The most it took; where nobody counts, what it takes now."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device) + self._beside
        return self.nbytes


class Meter:
    """Measures every device that a pair is on."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = [DeviceMeter(device) for device in devices]

    def settle(self) -> None:
        """The pair is loaded: what a device lacks now beyond torch's own is the runtime's.

        NOTE: memory that another program takes during the load is counted as ours.
        """
        for device in self._devices:
            device.settle()

    @property
    def device_bytes(self) -> int:
        """What this process takes of its devices now."""
        return sum(device.nbytes for device in self._devices)

    @property
    def peak_bytes(self) -> int:
        """The most it took."""
        return sum(device.peak for device in self._devices)

    @property
    def by_device(self) -> tuple[DeviceTaken, ...]:
        """The same of each, where there are several."""
        if len(self._devices) < 2:
            return ()
        return tuple(DeviceTaken(one.name, one.nbytes, one.peak) for one in self._devices)

    @property
    def host_bytes(self) -> int:
        """What this process has of the host for itself."""
        return own_host_bytes() or int(psutil.Process().memory_info().rss)


@dataclass(slots=True)
class Holding:
    """A loaded pair's memory, see `tending.PairMemory`."""

    meter: Meter
    load_drafter: LoadDrafter
    target_bytes: int
    drafter_bytes: int
    kv_bytes: int

    def drafter_is(self, nbytes: int) -> None:
        """The drafter that is in memory has so many bytes."""
        self.drafter_bytes = nbytes

    def measure(self, prefix_bytes: int) -> Measured:
        """What the process takes now."""
        return Measured(
            device_bytes=self.meter.device_bytes,
            host_bytes=self.meter.host_bytes,
            target_bytes=self.target_bytes,
            drafter_bytes=self.drafter_bytes,
            kv_bytes=self.kv_bytes,
            prefix_bytes=prefix_bytes,
            peak_device_bytes=self.meter.peak_bytes,
            devices=self.meter.by_device,
        )
