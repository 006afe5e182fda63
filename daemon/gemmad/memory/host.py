"""The host's memory, as far as this process may use it."""

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gemmad.core import ByteCount
from gemmad.memory import cgroup, macos, psi
from gemmad.memory.parts import CpuKind
from gemmad.memory.readings import HOST, Device, Host

CPU_INFO = Path("/proc/cpuinfo")
NATIVE_KERNELS = Path(__file__).parents[2] / "gemmarunner" / "native"  # built there, or not
_NATIVE = {"avx2", "fma", "f16c"}  # what they need
_FAST_BF16 = frozenset(("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's


class Places(NamedTuple):
    """Where Linux tells; tests put their own there."""

    mount: Path = cgroup.MOUNT
    groups: Path = cgroup.SELF
    pressure: Path = psi.SYSTEM


def memory() -> tuple[int, int]:
    """Total and available bytes of the system; on Windows and macOS too."""
    import psutil  # 20 ms that the start of the daemon does not wait for

    found = psutil.virtual_memory()
    return int(found.total), int(found.available)


def read_host(places: Places | None = None, system: Callable[[], tuple[int, int]] = memory) -> Host:
    """What there is and what may still be taken: the system's, within the group's limits."""
    where = places or Places()
    total, available = system()
    limit = cgroup.read_limit(where.mount, where.groups)
    if limit is not None:
        total, available = min(total, limit.total), min(available, limit.left)
    return Host(ByteCount(total), ByteCount(min(total, available)), _pressure(where))


def available_bytes() -> int:
    """What programs may still take of the host without swapping, within the group's limits."""
    return read_host().available


def host_device(host: Host) -> Device:
    """The host as something that a pair can run on."""
    return Device(
        HOST, "cpu", platform.machine() or "CPU", host.total, host.available, unified=True
    )


def cpu_kind(
    info: Path = CPU_INFO, machine: str | None = None, kernels: Path = NATIVE_KERNELS
) -> CpuKind:
    """How a runner keeps matrices on this CPU; see `plain.py`."""
    x86 = (machine or platform.machine()).lower() in ("x86_64", "amd64")
    try:
        lines = info.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    told = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    features = set(told.split())
    if x86 and features >= _NATIVE and any(kernels.glob("_kernels*.so")):
        return "native"
    if _FAST_BF16 & features:
        return "bf16"
    return "half" if x86 else "float32"


def _pressure(where: Places) -> float | None:
    if sys.platform == "darwin":
        return macos.read_pressure()
    group = cgroup.own_group(where.mount, where.groups)
    own = () if group is None else (group / psi.OF_GROUP,)
    return psi.read_pressure((where.pressure, *own))
