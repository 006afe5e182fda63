"""What this machine has for models: memory, and a GPU's when its driver says so."""

import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

from gemmad.core import ByteCount

Fits = Literal["gpu", "cpu", "no", "unknown"]

_QUERY = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")
_ASK_S = 10.0
_USABLE = 0.9  # the system and the driver keep some


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes; None: not known, or no GPU."""

    memory: ByteCount | None
    gpu: ByteCount | None = None

    def fits(self, needed: ByteCount) -> Fits:
        """Where a pair that takes `needed` bytes would run."""
        if self.gpu is not None and needed <= self.gpu * _USABLE:
            return "gpu"
        if self.memory is None:
            return "unknown"
        return "cpu" if needed <= self.memory * _USABLE else "no"


def this_machine() -> Machine:
    """Blocks while the driver is asked."""
    import psutil  # 20 ms that the start of the daemon does not wait for

    return Machine(ByteCount(psutil.virtual_memory().total), _gpu_memory())


def _gpu_memory() -> ByteCount | None:
    """Of the largest GPU: a pair runs on one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        told = subprocess.run(
            [program, *_QUERY], capture_output=True, text=True, timeout=_ASK_S, check=True
        )
        return ByteCount(max(int(line) for line in told.stdout.split()) << 20)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
