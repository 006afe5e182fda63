"""A control group with a memory limit of its own, for the programs that a test starts.

It is made below this process's group, by whichever version of control groups has the memory
controller here. The kernel keeps the limit; whoever starts in the group inherits it.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from gemmad.memory import cgroup

LIMITS = {"v1": "memory.limit_in_bytes", "v2": "memory.max"}
_GONE_S = 10.0


class NoMemoryGroup(Exception):
    """This machine lets us make none; the message says what it answered."""


class MemoryGroup:
    """Made by `open`, and gone with all its processes after `close`."""

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self._limit = path / LIMITS[version]

    @classmethod
    def open(cls, nbytes: int) -> "MemoryGroup":
        """A new group with the limit.

        Raises:
            NoMemoryGroup: no hierarchy takes one.
        """
        answers = []
        for version, parent in _parents():
            path = parent / f"gemma-test-{os.getpid()}-{time.monotonic_ns()}"
            made = cls(path, version)
            try:
                path.mkdir()
                made.limit(nbytes)
                return made
            except OSError as error:
                answers.append(f"{version}: {error}")
                with contextlib.suppress(OSError):
                    path.rmdir()
        raise NoMemoryGroup("; ".join(answers) or "no control group has the memory controller")

    def limit(self, nbytes: int) -> None:
        """The programs in it hold so much together, and no more."""
        if not self._limit.exists():  # a plain directory, or a controller that is not handed down
            raise FileNotFoundError(f"{self._limit} is not there")
        self._limit.write_text(str(nbytes))

    def inside(self, command: list[str]) -> list[str]:
        """The same program, in the group from its first instruction on."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.path / "cgroup.procs"), *command]

    @property
    def left(self) -> int:
        """Bytes that its programs may still take, as they read it themselves."""
        limit = cgroup.read_limit(about=Path(f"/proc/{self.pids[0]}/cgroup"))
        assert limit is not None
        return limit.left

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def close(self) -> None:
        until = time.monotonic() + _GONE_S
        while pids := self.pids:
            assert time.monotonic() < until, f"{pids} do not end"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.path.rmdir()


def _parents() -> list[tuple[str, Path]]:
    """This process's own groups in the hierarchies that have the memory controller."""
    found = []
    for line in cgroup.SELF.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found.append(("v1", cgroup.MOUNT / "memory" / path.lstrip("/")))
        elif not controllers:
            found.append(("v2", cgroup.MOUNT / path.lstrip("/")))
    return [(version, parent) for version, parent in found if parent.is_dir()]
