"""Where a pair runs and in what dtype: the request's words made into torch's."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from gemmad.api.errors import LoadFailed
from gemmarunner.models.stored import choose_dtype

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# A smaller model's matrices take no longer than waking threads and waiting for the last of them.
_ONE_THREAD_BYTES = 64 * 2**20
_CGROUP = Path("/sys/fs/cgroup")  # a container sees its own limits at the root
_V1 = ("quota", "period")


def resolve_device(wanted: str) -> str:
    """`wanted`, which may name one of several as `cuda:1`, or for "auto" the best there is.

    Raises:
        LoadFailed: no such device here.
    """
    present = [name for name, is_there in _DEVICES.items() if is_there()]
    if wanted == "auto":
        return present[0]
    kind, _, index = wanted.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in present or (index and not (index.isdecimal() and int(index) < count)):
        raise LoadFailed(
            f"There is no device {wanted!r} that torch can use.",
            fix=f"Use auto or one of: {', '.join(present)}.",
        )
    return wanted


def make_current(device: str) -> None:
    """Kernels that are launched without a device's name run there."""
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)


_DEVICES: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}


def resolve_dtype(wanted: str, device: str, stored: torch.dtype, weight_bytes: int) -> torch.dtype:
    """`wanted`, or for "auto" what suits the device and the free memory.

    Raises:
        LoadFailed: no such dtype.
    """
    if wanted == "auto":
        return choose_dtype(device, stored, weight_bytes, free_bytes(device))
    if wanted not in _DTYPES:
        raise LoadFailed(
            f"There is no dtype {wanted!r}.", fix=f"Use auto or one of: {', '.join(_DTYPES)}."
        )
    return _DTYPES[wanted]


def free_bytes(device: str) -> int:
    """Bytes that weights and caches may still take on a device.

    On MPS, whose memory is the system's too: what is left of the share that Metal recommends, and
    no more than the system has free. Beyond that share it swaps.
    """
    system = psutil.virtual_memory().available
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if device.startswith("mps"):
        left = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(left, system))
    return system


def use_threads(wanted: int, device: str, weight_bytes: int) -> None:
    """Torch computes with `wanted` threads; 0: OMP_NUM_THREADS, else what suits the weights."""
    if wanted > 0:
        torch.set_num_threads(wanted)
    elif "OMP_NUM_THREADS" not in os.environ:
        one = device == "cpu" and weight_bytes <= _ONE_THREAD_BYTES
        torch.set_num_threads(1 if one else _physical_cores())


def _physical_cores() -> int:
    """Physical cores, but no more than this process may run on, nor than its quota is worth."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = _cpu_quota(_CGROUP)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _cpu_quota(cgroup: Path) -> float | None:
    """CPUs that a container's limit is worth (cgroup v2, else v1); None: no limit."""
    with contextlib.suppress(OSError, ValueError):
        limit, period = (cgroup / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    with contextlib.suppress(OSError, ValueError):
        limit, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in _V1)
        return int(limit) / int(period) if int(limit) > 0 else None
    return None
