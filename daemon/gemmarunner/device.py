"""Where a pair runs and in what dtype: the request's words made into torch's."""

import os
from collections.abc import Callable

import psutil
import torch

from gemmad.api.errors import LoadFailed
from gemmarunner.models.loader import choose_dtype

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# A smaller model's matrices take no longer than waking threads and waiting for the last of them.
_ONE_THREAD_BYTES = 64 * 2**20


def resolve_device(wanted: str) -> str:
    """`wanted`, or for "auto" the best there is.

    Raises:
        LoadFailed: no such device here.
    """
    present = [name for name, is_there in _DEVICES.items() if is_there()]
    if wanted == "auto":
        return present[0]
    if wanted not in present:
        raise LoadFailed(
            f"There is no device {wanted!r} that torch can use.",
            fix=f"Use auto or one of: {', '.join(present)}.",
        )
    return wanted


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
        return choose_dtype(device, stored, weight_bytes, psutil.virtual_memory().available)
    if wanted not in _DTYPES:
        raise LoadFailed(
            f"There is no dtype {wanted!r}.", fix=f"Use auto or one of: {', '.join(_DTYPES)}."
        )
    return _DTYPES[wanted]


def use_threads(wanted: int, device: str, weight_bytes: int) -> None:
    """Torch computes with `wanted` threads; 0: OMP_NUM_THREADS, else what suits the weights."""
    if wanted > 0:
        torch.set_num_threads(wanted)
    elif "OMP_NUM_THREADS" not in os.environ:
        one = device == "cpu" and weight_bytes <= _ONE_THREAD_BYTES
        torch.set_num_threads(1 if one else _physical_cores())


def _physical_cores() -> int:
    """Physical cores, but no more than this process may run on."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return cores
