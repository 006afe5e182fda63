"""What a person needs to know of this machine, as records; pure."""

from dataclasses import asdict
from typing import Any

import msgspec

from gemmad.core import ByteCount
from gemmad.dialects.ollama.replies import Record
from gemmad.memory.readings import Budget, Device, Machine


class DoctorBody(msgspec.Struct):
    """POST /api/doctor: a script of readings is looked at instead of this machine."""

    script: dict[str, Any] | None = None


def machine(seen: Machine) -> Record:
    """What the probe read."""
    host = seen.host
    return {
        "devices": [_device(device) for device in seen.devices],
        "budgets": [_budget(budget) for budget in seen.budgets],
        "host": {"total": host.total, "available": host.available, "pressure": host.pressure},
        "notes": list(seen.notes),
    }


def _device(device: Device) -> Record:
    record = asdict(device)
    return {**record, "usable": device.is_usable}


def _budget(budget: Budget) -> Record:
    return {
        "id": budget.id,
        "total": budget.total,
        "free": budget.free,
        "devices": list(budget.devices),
    }


def why_not(seen: Machine, fits: str, needed: ByteCount) -> str:
    """Why a pair of that size does not run on one GPU, in a few words; empty when it does."""
    if fits == "gpu":
        return ""
    usable = [device for device in seen.accelerators if not device.unified]
    most = max((device.total for device in usable), default=None)
    if fits == "unknown":
        return "its size is not known"
    gpu = "there is no GPU" if most is None else f"the largest GPU has {_gib(most)}"
    if fits in ("gpus", "cpu"):
        return gpu
    return f"it needs {_gib(needed)}, {gpu} and the host {_gib(seen.host.total)}"


def _gib(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.0f} GiB"
