"""What a pair would take of a device and of the host; pure arithmetic, before anything is loaded.

Weights and keys and values are exact: the same formulas by which a runner lays them out. Workspace
is what the largest step holds at once; only what a process takes for its libraries is a constant,
measured once for each kind of device, see `runtime.py`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from gemmad.core import ByteCount
from gemmad.memory import fused, plain
from gemmad.memory.parts import Parts, Setting
from gemmad.memory.runtime import NATIVE, RUNTIMES, TOKEN_BYTES
from gemmad.memory.shapes import PairShape

__all__ = ["Estimate", "Parts", "Setting", "estimate", "largest_context"]

Source = Literal["computed", "measured"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes by what takes them. `host` is apart: it is never the device's, if that has its own."""

    target_weights: ByteCount
    drafter_weights: ByteCount
    kv: ByteCount
    drafter_state: ByteCount
    workspace: ByteCount
    graphs: ByteCount  # the runtime's own memory, and captured rounds'
    media: ByteCount
    host: ByteCount  # of the process; on unified memory and the CPU all else is there too
    prefixes: ByteCount  # kept prompts may grow to this; they leave first and are in no sum
    mapped: ByteCount  # file pages that the system may drop and read again
    unified: bool = False  # the device's memory is the host's
    source: Source = "computed"

    @property
    def device(self) -> ByteCount:
        """All that the device must have free; nothing on unified memory is counted twice."""
        own = (
            self.target_weights + self.drafter_weights + self.kv + self.drafter_state
            + self.workspace + self.graphs + self.media
        )  # fmt: skip
        return ByteCount(own + (self.host if self.unified else 0))

    @property
    def host_only(self) -> ByteCount:
        """What the host must have free beside it."""
        return ByteCount(0 if self.unified else self.host)

    @property
    def drafter(self) -> ByteCount:
        """What the pair takes less without its drafter."""
        return ByteCount(self.drafter_weights + self.drafter_state)

    def corrected(self, device: ByteCount, host: ByteCount | None = None) -> "Estimate":
        """The same with the measured sum: what differs is workspace."""
        took = self if host is None else replace(self, host=host)
        workspace = max(0, took.workspace + device - took.device)
        return replace(took, workspace=ByteCount(workspace), source="measured")


def estimate(pair: PairShape, setting: Setting) -> Estimate:
    """What `pair` takes when it is loaded in this way."""
    is_native = setting.kind == "cpu" and setting.cpu == "native"
    runtime = NATIVE if is_native else RUNTIMES[setting.kind]
    parts = (fused if setting.is_fused else plain).parts(pair, setting)
    media = pair.target.media_bytes + pair.projector_bytes if setting.media else 0
    unified = setting.unified or setting.kind in ("cpu", "mps")
    return Estimate(
        target_weights=ByteCount(parts.target),
        drafter_weights=ByteCount(parts.drafter),
        kv=ByteCount(parts.kv),
        drafter_state=ByteCount(parts.drafter_state),
        workspace=ByteCount(parts.workspace),
        graphs=ByteCount(runtime.device_bytes + parts.graphs),
        media=ByteCount(media),
        host=ByteCount(runtime.host_bytes + TOKEN_BYTES * pair.target.vocab + parts.host),
        prefixes=ByteCount(2 * parts.kv // setting.slots),
        mapped=ByteCount(parts.mapped),
        unified=unified,
    )


def largest_context(
    pair: PairShape, setting: Setting, room: ByteCount, *, least: int = 2048
) -> int | None:
    """The largest context up to the setting's that takes no more than `room` on its device.

    A power of two times `least`, or the setting's own; None: not even `least` fits.
    """
    fitting = None
    num_ctx = min(least, setting.num_ctx)
    while True:
        if estimate(pair, replace(setting, num_ctx=num_ctx)).device > room:
            return fitting
        fitting = num_ctx
        if num_ctx >= setting.num_ctx:
            return fitting
        num_ctx = min(2 * num_ctx, setting.num_ctx)
