"""What residency may show: a GPU with a busy pair, a loading and a crashed one, and a queue."""

import math

from gemmad.core import ByteCount, Digest
from gemmad.residency.seen import (
    BudgetSeen,
    CrashSeen,
    DrafterSeen,
    LoadProgress,
    Ours,
    QueuedSeen,
    RefusedSeen,
    ResidencySnapshot,
    ResidentSeen,
    TargetSeen,
    Totals,
)

GIB = 1 << 30
MIB = 1 << 20
GPU = "cuda:0"


def count(nbytes: float) -> ByteCount:
    """Bytes."""
    return ByteCount(int(nbytes))


BUSY = ResidentSeen(
    name="gemma4:e4b",
    manifest_id=Digest("sha256:" + "a1" * 32),
    state="ready",
    slots=2,
    num_ctx=8192,
    target=TargetSeen(GPU, count(8 * GIB), "the best device here"),
    drafter=DrafterSeen("attached", GPU, count(160 * MIB)),
    users=2,
    queued=1,
    keep_alive_s=300,
    expires_in_s=300,
    kv_bytes=count(1.5 * GIB),
    prefix_bytes=count(256 * MIB),
    depth=4,
    acceptance=(0.84, 0.6, 0.39, 0.27),
    tokens_per_second=182.3,
    pid=4711,
    dtype="bfloat16",
)
LEAN = ResidentSeen(
    name="gemma4:e2b",
    manifest_id=Digest("sha256:" + "b2" * 32),
    state="ready",
    slots=1,
    num_ctx=4096,
    num_ctx_why="memory has room for 4096 tokens of 8192",
    target=TargetSeen(GPU, count(5 * GIB)),
    drafter=DrafterSeen("detached", why="to make room for gemma4:e4b"),
    keep_alive_s=math.inf,
    expires_in_s=math.inf,
    kv_bytes=count(0.5 * GIB),
    pid=4712,
    dtype="bfloat16",
)
LOADING = ResidentSeen(
    name="nano:latest",
    manifest_id=Digest("sha256:" + "c3" * 32),
    state="loading",
    slots=1,
    num_ctx=4096,
    target=TargetSeen("", count(30 * MIB)),
    drafter=DrafterSeen("set_aside", why="its runner crashed with it"),
    progress=LoadProgress("target", 1, 4),
    crashes=CrashSeen(3, 1_800_000_060.0, "SIGSEGV", tuple(f"line {n}" for n in range(9))),
)
SCENE = ResidencySnapshot(
    residents=(BUSY, LEAN, LOADING),
    budgets=(
        BudgetSeen(
            GPU,
            "RTX 4090",
            count(24 * GIB),
            count(6 * GIB),
            count(1 * GIB),
            Ours(
                target=count(13 * GIB),
                drafter=count(160 * MIB),
                kv=count(2 * GIB),
                prefixes=count(256 * MIB),
                other=count(1 * GIB),
            ),
        ),
        BudgetSeen(
            "cpu",
            "Host",
            count(64 * GIB),
            count(40 * GIB),
            count(2 * GIB),
            Ours(spare=count(400 * MIB), other=count(2 * GIB)),
            ("swap is in use",),
        ),
    ),
    queue=(QueuedSeen("gemma4:31b", "interactive", 3.25), QueuedSeen("nano:latest", "batch", 1.0)),
    totals=Totals(loads=5, evictions=2, detaches=1, crashes=3),
    notes=("NVIDIA's driver answers slowly",),
    refused=(RefusedSeen("gemma4:12b", CrashSeen(3, 1_800_000_030.0, "SIGILL", ("last",))),),
)
