"""NVIDIA's GPUs through the driver's own library, kept open between readings.

no driver yet        no devices; each reading asks again, so one that comes late is seen
driver gone, GPU     the devices seen last, each with the note `gpu lost: ...`, until the
lost (15, 999)       driver answers again
MIG                  its instances instead of the GPU; a process is given one by its uuid
no memory of its own an integrated GPU: its memory is the host's
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from gemmad.core import ByteCount
from gemmad.memory.readings import Device, Host

LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED, UNINITIALIZED = 12, 9, 1
NOT_SUPPORTED, NOT_FOUND, VERSION_MISMATCH = 3, 6, 18
GPU_IS_LOST, UNKNOWN = 15, 999
_ABSENT = (LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED)
_LOST = (GPU_IS_LOST, UNKNOWN)

LOST = "gpu lost"


class Found(NamedTuple):
    """One reading of this source."""

    devices: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()


def load_pynvml() -> Any:
    """The binding, imported when it is first asked for: most machines have no use for it."""
    import pynvml

    return pynvml


class Nvml:
    """The library's session; only one thread at a time may read."""

    def __init__(self, load: Callable[[], Any] = load_pynvml) -> None:
        self._load = load
        self._module: Any = None
        self._is_open = False
        self._seen: tuple[Device, ...] = ()  # when all was well

    def read(self, host: Host, visible: str | None = None) -> Found:
        """The GPUs that a child may use, as CUDA_VISIBLE_DEVICES (`visible`) lets it.

        Raises nothing that the driver says: what is wrong stands in notes.
        """
        try:
            self._module = self._module or self._load()
        except ImportError:
            return Found()
        try:
            self._open()
            found = tuple(self._devices(host))
        except self._module.NVMLError as error:
            return self._trouble(error)
        if any(device.note for device in found):
            self.close()  # a lost GPU comes back to a new session only
        else:
            self._seen = found
        return Found(_visible(found, visible))

    def close(self) -> None:
        """The session is closed; the next reading opens one."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(self._module.NVMLError):
                self._module.nvmlShutdown()

    def _open(self) -> None:
        if not self._is_open:
            self._module.nvmlInit()
            self._is_open = True

    def _trouble(self, error: Any) -> Found:
        """What a driver that does not answer comes to."""
        code = getattr(error, "value", UNKNOWN)
        self.close()
        if self._seen:
            return Found(tuple(_lost(device, error) for device in self._seen))
        if code in _ABSENT:
            return Found()
        if code == VERSION_MISMATCH:
            return Found(notes=("The NVIDIA driver was updated: restart the machine to use it.",))
        return Found(notes=(f"The NVIDIA driver does not answer: {error}.",))

    def _devices(self, host: Host) -> Iterator[Device]:
        nvml = self._module
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                instances = self._instances(handle)
                for one in [handle] if instances is None else instances:
                    yield self._device(index, one, host)
            except nvml.NVMLError as error:
                if getattr(error, "value", None) == UNINITIALIZED:
                    raise
                yield _lost(self._seen_at(index), error)

    def _instances(self, handle: Any) -> list[Any] | None:
        """The MIG instances of a GPU; None: it is whole."""
        nvml = self._module
        try:
            if not nvml.nvmlDeviceGetMigMode(handle)[0]:
                return None
            most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
        except nvml.NVMLError as error:
            if error.value in _LOST:
                raise
            return None  # most GPUs cannot be divided
        found = []
        for index in range(most):
            with contextlib.suppress(nvml.NVMLError):  # a place that none has taken
                found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        return found

    def _device(self, index: int, handle: Any, host: Host) -> Device:
        nvml = self._module
        name = _text(nvml.nvmlDeviceGetName(handle))
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as error:
            if error.value != NOT_SUPPORTED:
                raise
            return Device(
                f"cuda:{index}", "cuda", name, host.total, host.available, unified=True, uuid=uuid
            )
        total = max(0, int(memory.total))
        free = min(total, max(0, int(memory.free)))
        return Device(f"cuda:{index}", "cuda", name, ByteCount(total), ByteCount(free), uuid=uuid)

    def _seen_at(self, index: int) -> Device:
        if index < len(self._seen):
            return self._seen[index]
        return Device(f"cuda:{index}", "cuda", "NVIDIA GPU", ByteCount(0), ByteCount(0))


def _lost(device: Device, error: object) -> Device:
    code = getattr(error, "value", None)
    told = f"{error}" if code is None else f"{error} ({code})"
    return replace(device, free=ByteCount(0), note=f"{LOST}: {told}")


def _visible(devices: Sequence[Device], wanted: str | None) -> tuple[Device, ...]:
    """The devices that CUDA would show a process, numbered as it numbers them."""
    if wanted is not None:
        found: list[Device] = []
        for token in wanted.split(","):
            device = _named(devices, token.strip())
            if device is None or device in found:
                break  # CUDA shows none behind one that it does not know
            found.append(device)
        devices = found
    return tuple(replace(device, id=f"cuda:{i}") for i, device in enumerate(devices))


def _named(devices: Sequence[Device], token: str) -> Device | None:
    if token.isdecimal():
        return devices[int(token)] if int(token) < len(devices) else None
    if not token.startswith(("GPU-", "MIG-")):
        return None
    return next((device for device in devices if device.uuid.startswith(token)), None)


def _text(told: str | bytes) -> str:
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else told
