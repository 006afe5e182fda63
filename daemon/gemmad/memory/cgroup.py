"""What Linux control groups leave this process of the host's memory: the tightest of all above it.

    v2   <mount>/<path of 0::>/memory.max, memory.high, memory.current, memory.stat
    v1   <mount>/memory/<path of the memory controller>/memory.limit_in_bytes, ...

A container sees its own group at the mount itself, whatever path it is told.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MOUNT = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60  # v1 says almost 2^63 where there is none
_MAX_DEPTH = 64


class Limit(NamedTuple):
    """What a group's limit comes to, in bytes."""

    total: int
    left: int  # file pages that the kernel would drop first are left too


class _Names(NamedTuple):
    limits: tuple[str, ...]
    current: str
    cache: tuple[str, ...]  # keys of memory.stat


_V2 = _Names(
    ("memory.max", "memory.high"),
    "memory.current",
    ("inactive_file", "active_file", "slab_reclaimable"),
)
_V1 = _Names(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def read_limit(mount: Path = MOUNT, about: Path = SELF) -> Limit | None:
    """The least that any group above this process leaves it; None: no group has a limit."""
    found = [limit for group, names in _groups(mount, about) if (limit := _limit(group, names))]
    if not found:
        return None
    return Limit(min(limit.total for limit in found), min(limit.left for limit in found))


def own_group(mount: Path = MOUNT, about: Path = SELF) -> Path | None:
    """The directory of this process's group in the unified hierarchy; None: there is none."""
    groups = (group for group, names in _groups(mount, about) if names is _V2)
    return next(groups, None)


def _groups(mount: Path, about: Path) -> tuple[tuple[Path, _Names], ...]:
    """This process's groups and those above, innermost first."""
    try:
        return _told(mount, about.read_text())
    except (OSError, UnicodeDecodeError):
        return ()


@functools.lru_cache(maxsize=8)  # it is read every second, and a process seldom moves
def _told(mount: Path, about: str) -> tuple[tuple[Path, _Names], ...]:
    found: list[tuple[Path, _Names]] = []
    for line in about.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found += _upwards(mount, path, _V2)
        elif "memory" in controllers.split(","):
            found += _upwards(mount / "memory", path, _V1)
    return tuple(found)


def _upwards(top: Path, path: str, names: _Names) -> Iterator[tuple[Path, _Names]]:
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for length in range(min(len(parts), _MAX_DEPTH), -1, -1):
        group = top.joinpath(*parts[:length])
        if (group / names.current).is_file() or length == 0:
            yield group, names


def _limit(group: Path, names: _Names) -> Limit | None:
    limits = [found for name in names.limits if (found := _number(group / name)) is not None]
    limits = [limit for limit in limits if limit < _NO_LIMIT]
    current = _number(group / names.current)
    if not limits or current is None:
        return None
    held = max(0, current - _cache(group, names))
    return Limit(min(limits), max(0, min(limits) - held))


def _cache(group: Path, names: _Names) -> int:
    total = 0
    with contextlib.suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            key, _, value = line.partition(" ")
            if key in names.cache:
                total += int(value)
    return total


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none: no such file, or `max`."""
    try:
        return max(0, int(path.read_text()))
    except (OSError, ValueError):
        return None
