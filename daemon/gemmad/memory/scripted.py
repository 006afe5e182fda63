"""Plays a script of readings instead of a machine: for tests, and for `gemma doctor --simulate`.

{"readings": [
    {"host": {"total": "64GiB", "available": "50GiB", "pressure": 0.0},
     "devices": [{"id": "cuda:0", "name": "RTX 4090", "total": "24GiB", "free": "20GiB"}],
     "notes": [], "repeat": 3},
    ...]}

Sizes are bytes, or numbers with KiB, MiB, GiB or TiB behind them. The host is a device of its own
accord. The last reading stays.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from gemmad.api.errors import BadRequest
from gemmad.core import ByteCount
from gemmad.memory.host import host_device
from gemmad.memory.readings import Device, DeviceKind, Host, Machine

Size = int | str

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|KiB|MiB|GiB|TiB)")
_MAX_BYTES = 4 << 20


class _Host(msgspec.Struct, forbid_unknown_fields=True):
    total: Size
    available: Size
    pressure: float | None = None


class _Device(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    total: Size
    free: Size
    kind: DeviceKind = "cuda"
    name: str = "GPU"
    unified: bool = False
    note: str = ""


class _Reading(msgspec.Struct, forbid_unknown_fields=True):
    host: _Host
    devices: list[_Device] = []
    notes: list[str] = []
    repeat: int = 1


class _Script(msgspec.Struct, forbid_unknown_fields=True):
    readings: list[_Reading]


class ScriptedProbe:
    """A `Probe` that gives one reading after the other, and the last one for ever."""

    def __init__(self, readings: Sequence[Machine]) -> None:
        assert readings
        self._readings = list(readings)

    @classmethod
    def of_file(cls, path: Path) -> "ScriptedProbe":
        """The script in a file.

        Raises:
            BadRequest: it is no script; says where.
        """
        try:
            with path.open("rb") as file:
                return cls(script(file.read(_MAX_BYTES)))
        except OSError as error:
            raise BadRequest(f"The script cannot be read: {error.strerror}.") from error

    def read(self) -> Machine:
        """The next reading."""
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]


def script(text: bytes) -> list[Machine]:
    """The readings of a script, each as often as it says.

    Raises:
        BadRequest: it is no script; says where.
    """
    try:
        found = msgspec.json.decode(text, type=_Script)
        readings = [machine for reading in found.readings for machine in _played(reading)]
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"This is no script of memory readings: {error}.") from error
    if not readings:
        raise BadRequest("This script of memory readings has none.")
    return readings


def _played(reading: _Reading) -> Iterator[Machine]:
    told = reading.host
    total = _size(told.total)
    host = Host(total, ByteCount(min(total, _size(told.available))), told.pressure)
    devices = [_device(device, host) for device in reading.devices]
    machine = Machine((*devices, host_device(host)), host, tuple(reading.notes))
    for _ in range(max(1, min(reading.repeat, 1_000_000))):
        yield machine


def _device(told: _Device, host: Host) -> Device:
    total = _size(told.total)
    free = ByteCount(min(total, _size(told.free)))
    if told.unified:
        free = ByteCount(min(free, host.available))
    return Device(told.id, told.kind, told.name, total, free, told.unified, note=told.note)


def _size(told: Size) -> ByteCount:
    if isinstance(told, int) and told >= 0:
        return ByteCount(told)
    found = _SIZE.fullmatch(str(told).strip())
    if found is None:
        raise ValueError(f"{str(told)[:40]!r} is no size, such as 24GiB")
    return ByteCount(int(float(found[1]) * _UNITS[found[2]]))
