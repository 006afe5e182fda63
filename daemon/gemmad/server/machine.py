"""Where on this machine a pair would run, by what it needs and what there is."""

from typing import Literal

from gemmad.core import ByteCount
from gemmad.memory.readings import Machine
from gemmad.memory.runtime import RUNTIMES

Fits = Literal["gpu", "gpus", "cpu", "no", "unknown"]

_USABLE = 0.9  # the system and the driver keep some


def fits(machine: Machine, needed: ByteCount) -> Fits:
    """Where a pair that takes `needed` bytes would run if nothing else did.

    On one GPU that torch can use, else on several; unified memory is one for both, so what fits
    there fits a GPU.
    """
    rooms = [device.total for device in machine.accelerators]
    if needed <= max(rooms, default=0) * _USABLE:
        return "gpu"
    joined = machine.joined
    beside = sum(RUNTIMES[device.kind].device_bytes for device in joined[1:])
    if needed + beside <= sum(device.total for device in joined) * _USABLE:
        return "gpus"
    if not machine.host.total:
        return "unknown"
    return "cpu" if needed <= machine.host.total * _USABLE else "no"
