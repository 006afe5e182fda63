"""Counts the processes that this Linux kernel killed for want of memory, in any control group."""

from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def kills(vmstat: Path = VMSTAT) -> int:
    """So many since the machine started; always 0 where no kernel tells."""
    try:
        lines = vmstat.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0
