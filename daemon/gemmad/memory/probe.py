"""Reads what memory this machine has and lacks now, from every source that it has."""

import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from gemmad.memory import macos, rocm
from gemmad.memory.host import host_device, read_host
from gemmad.memory.nvml import Found, Nvml
from gemmad.memory.readings import Device, Host, Machine

_NO_GPU = "PyTorch is installed without support for this GPU"


class Probe(Protocol):
    """Whoever reads the machine, or plays one."""

    def read(self) -> Machine:
        """What there is now. Blocks for a few milliseconds."""
        ...


@functools.cache
def torch_build() -> str:
    """What the installed torch was built for, by its version's suffix; empty: for CUDA.

    Seen without importing it.
    """
    import importlib.metadata  # 10 ms that the start of the daemon does not wait for

    try:
        return importlib.metadata.version("torch").partition("+")[2]
    except importlib.metadata.PackageNotFoundError:
        return ""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a probe asks; tests replace what they play."""

    host: Callable[[], Host] = read_host
    rocm: Callable[[Host], list[Device]] = rocm.read_devices
    mps: Callable[[Host], list[Device]] = macos.read_devices
    build: Callable[[], str] = torch_build
    visible: Callable[[], str | None] = lambda: os.environ.get("CUDA_VISIBLE_DEVICES")


class MachineProbe:
    """This machine. Its session with NVIDIA's driver stays open, so that a reading is quick."""

    def __init__(self, nvml: Nvml | None = None, sources: Sources | None = None) -> None:
        self._nvml = nvml or Nvml()
        self._sources = sources or Sources()
        # The driver's session: the scheduler's thread and those of requests read.
        self._one = threading.Lock()

    def read(self) -> Machine:
        """See `Probe`."""
        ask = self._sources
        host = ask.host()
        with self._one:
            nvidia = self._nvml.read(host, ask.visible())
        devices = _by_use(nvidia, ask.rocm(host), ask.build()) + ask.mps(host)
        return Machine((*devices, host_device(host)), host, nvidia.notes)

    def close(self) -> None:
        """No driver is kept open."""
        with self._one:
            self._nvml.close()


def _by_use(nvidia: Found, amd: list[Device], build: str) -> list[Device]:
    """GPUs that the installed torch can use first, numbered as it does; others say why not."""
    wanted = "rocm" if build.startswith("rocm") else "" if build.startswith("cpu") else "cuda"
    every = [*nvidia.devices, *amd]
    mine = [device for device in every if device.kind == wanted]
    others = [
        replace(device, id=f"{device.kind}-unused:{index}", note=device.note or _NO_GPU)
        for index, device in enumerate(device for device in every if device.kind != wanted)
    ]
    return mine + others
