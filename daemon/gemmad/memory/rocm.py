"""AMD's GPUs as Linux shows them: /sys/class/drm/card*/device, no library of AMD's needed."""

import contextlib
import re
from pathlib import Path
from typing import NamedTuple

from gemmad.core import ByteCount
from gemmad.memory.readings import Device, Host

DRM = Path("/sys/class/drm")
_CARD = re.compile(r"card\d+")
_VENDOR = "0x1002"
# An integrated GPU has a carve-out smaller than this and takes the rest from the host.
_CARVE_OUT = 2 << 30


class _Card(NamedTuple):
    address: str  # on the PCI bus, which is torch's order
    name: str
    total: int
    used: int


def read_devices(host: Host, drm: Path = DRM) -> list[Device]:
    """Every AMD GPU; an integrated one's memory is the host's."""
    return [_device(index, card, host) for index, card in enumerate(_cards(drm))]


def _cards(drm: Path) -> list[_Card]:
    found = []
    with contextlib.suppress(OSError):
        for card in drm.iterdir():
            if _CARD.fullmatch(card.name) and (read := _read(card / "device")):
                found.append(read)
    return sorted(found)


def _read(device: Path) -> _Card | None:
    try:
        if (device / "vendor").read_text().strip() != _VENDOR:
            return None
        total, used = (int((device / f"mem_info_vram_{w}").read_text()) for w in ("total", "used"))
    except (OSError, ValueError):
        return None
    name = ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        name = (device / "product_name").read_text().strip()
    return _Card(device.resolve().name, name or "AMD GPU", total, used)


def _device(index: int, card: _Card, host: Host) -> Device:
    unified = card.total < _CARVE_OUT
    total = host.total if unified else ByteCount(card.total)
    free = host.available if unified else ByteCount(max(0, card.total - card.used))
    return Device(f"cuda:{index}", "rocm", card.name, total, free, unified)
