"""What macOS says of memory, through sysctl: its pressure level, and the GPU's share.

kern.memorystatus_vm_pressure_level   1 normal, 2 warning, 4 critical
iogpu.wired_limit_mb                  what the GPU may take; 0: the system's own choice
"""

import platform
import sys
from collections.abc import Callable

from gemmad.core import ByteCount
from gemmad.memory.readings import Device, Host

Sysctl = Callable[[str], int | None]

_PRESSURES = {1: 0.0, 2: 50.0, 4: 100.0}
_LARGE = 36 << 30  # from here on Metal recommends three quarters of the memory, else two thirds


def sysctl(name: str) -> int | None:
    """An integer of the kernel's; None: it has none of that name."""
    if sys.platform != "darwin":
        return None
    import ctypes
    import ctypes.util

    library = ctypes.CDLL(ctypes.util.find_library("c"))
    value, size = ctypes.c_uint64(0), ctypes.c_size_t(8)
    failed = library.sysctlbyname(
        name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return None if failed else int(value.value)


def read_pressure(ask: Sysctl = sysctl) -> float | None:
    """The level as a number from 0 to 100."""
    level = ask("kern.memorystatus_vm_pressure_level")
    return None if level is None else _PRESSURES.get(level)


def read_devices(host: Host, ask: Sysctl = sysctl, machine: str | None = None) -> list[Device]:
    """The GPU of an Apple chip, whose memory is the host's."""
    if ask("hw.memsize") is None or (machine or platform.machine()) != "arm64":
        return []
    limit = (ask("iogpu.wired_limit_mb") or 0) << 20
    if not limit:
        limit = host.total * 3 // 4 if host.total >= _LARGE else host.total * 2 // 3
    total = min(limit, host.total)
    free = ByteCount(min(total, host.available))
    return [Device("mps", "mps", "Apple GPU", ByteCount(total), free, unified=True)]
