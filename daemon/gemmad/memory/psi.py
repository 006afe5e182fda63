"""How much Linux says tasks wait for memory (pressure stall information).

some avg10=0.00 avg60=0.00 avg300=0.00 total=0
full avg10=0.00 ...
"""

from collections.abc import Iterable
from pathlib import Path

SYSTEM = Path("/proc/pressure/memory")
OF_GROUP = "memory.pressure"


def read_pressure(paths: Iterable[Path] = (SYSTEM,)) -> float | None:
    """The highest share, in percent, of the last 10 s in which some task waited; None: unknown."""
    found = [share for path in paths if (share := _share(path)) is not None]
    return max(found, default=None)


def _share(path: Path) -> float | None:
    try:
        for line in path.read_text().splitlines():
            kind, *fields = line.split()
            if kind == "some":
                share = float(dict(field.split("=", 1) for field in fields)["avg10"])
                return min(100.0, max(0.0, share))
    except (OSError, ValueError, KeyError):  # older kernels: no such file, or it is switched off
        return None
    return None
