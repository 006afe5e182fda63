"""Random schedules of network faults and kills: no wrong byte committed, hardly one wasted.

What a schedule costs is bounded at both ends: in what the fetcher read, where nothing may come
twice but by a fault that forces it, and in what the hub sent, some of which never left a socket.
"""

import asyncio
import contextlib
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gemmad.api.errors import GemmaError
from tests.fakes.hub.fetching import NAME, QUICK, REPO, Pull, counted_reads, until
from tests.fakes.hub.server import FakeHub, running_hub

CHUNKS = 16
SMALL, LARGE = 64 << 10, 1 << 20  # bytes of a chunk: in the fast suite, and for the figures
BYTES = random.Random(11).randbytes(CHUNKS * LARGE + 4321)
SOCKETS = 256 << 10  # what a connection has under way when it is dropped
SILENT = ("flip", "swap", "other-file")  # the bytes are wrong and nothing says so
MOST_RUNS = 12


@dataclass
class Outcome:
    """What one schedule came to."""

    sent: int  # bytes, by the hub
    read: int  # bytes, by the fetcher
    kills: int
    silent: int  # answers with wrong bytes that look right
    streams: int  # whole files that were read as the hub would not send a range
    ignored: int  # ranges that the hub ignored
    slowest_cancel_s: float
    failures: int
    struck: int  # answers that a fault spoilt

    @property
    def readings(self) -> float:
        """How often the file may have come: wrong bytes that look right cost a second reading."""
        return 1.0 + self.streams + (1.0 + self.failures if self.silent else 0.0)


def misbehave(hub: FakeHub, rng: random.Random, chunk: int) -> None:
    """One random fault."""
    at = rng.randrange(CHUNKS * chunk)
    within = rng.randrange(chunk)
    faults: list[dict[str, Any]] = [
        {"kind": "reset", "at": within},
        {"kind": "truncate", "at": within},
        {"kind": "stall", "at": within, "seconds": 3},
        {"kind": "drip", "seconds": 0.05},
        {"kind": "slow", "rate": 4 * chunk},
        {"kind": "refuse"},
        {"kind": "ignore-range"},
        {"kind": "wrong-range"},
        {"kind": "short-range"},
        {"kind": "etag"},
        {"kind": "size"},
        {"kind": "flip", "at": at},
        {"kind": "swap"},
        {"kind": "other-file"},
        {"kind": "status", "status": rng.choice([401, 403, 404, 408, 500, 502, 503])},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
        {"kind": "redirect-loop"},
        {"kind": "redirect", "location": "http://127.0.0.1:9/x"},
        {"kind": "headers", "count": 300},
    ]
    fault = rng.choice(faults)
    hub.misbehave(
        **fault,
        where=rng.choice(["cdn", "cdn", "cdn", "hub"]),
        path=f"*{NAME}",
        times=rng.choice([1, 1, 2, 3, 11]),
        after=rng.randrange(20),
    )


async def kill(hub: FakeHub, task: "asyncio.Task[None]", sent: int) -> float:
    """The task is cancelled once the hub sent so much; seconds it took to end."""
    mark = hub.bytes_sent() + sent
    await until(lambda: task.done() or hub.bytes_sent() >= mark)
    began = time.monotonic()
    task.cancel()
    await asyncio.wait({task})
    return time.monotonic() - began


async def run_until_done(hub: FakeHub, pull: Pull, rng: random.Random) -> tuple[float, int, int]:
    """The file is here; the slowest cancellation in seconds, how many, and how many failures."""
    kills = failures = 0
    slowest = 0.0
    for _ in range(MOST_RUNS):
        task = asyncio.create_task(pull.run())
        if kills < 2 and rng.random() < 0.5:
            slowest = max(slowest, await kill(hub, task, rng.randrange(len(pull.data))))
            kills += 1
        with contextlib.suppress(GemmaError, asyncio.CancelledError):
            await task
            break
        failures += 1
        if pull.path.exists():  # cancelled while it was committed
            break
    return slowest, kills, failures


def outcome_of(hub: FakeHub, read: int, kills: int, failures: int, slowest: float) -> Outcome:
    """What the hub's log says of a schedule."""
    struck = [seen for seen in hub.requests if seen.fault]
    ignored = [seen for seen in struck if seen.fault == "ignore-range"]
    return Outcome(
        sent=hub.bytes_sent(),
        read=read,
        kills=kills,
        silent=sum(seen.fault in SILENT for seen in struck),
        streams=sum(seen.sent > SOCKETS for seen in ignored),
        ignored=len(ignored),
        slowest_cancel_s=slowest,
        failures=failures,
        struck=len(struck),
    )


async def run_schedule(seed: int, root: Path, chunk: int) -> Outcome:
    """One schedule from its seed; the blob is right at its end, and progress never went back."""
    rng, data = random.Random(seed), BYTES[: CHUNKS * chunk + 4321]
    with running_hub() as hub, counted_reads() as read:
        hub.narrow()
        hub.add(REPO, {NAME: data})
        for _ in range(rng.randrange(1, 6)):
            misbehave(hub, rng, chunk)
        pull = Pull(hub, root, data, limits=QUICK, chunk_bytes=chunk)
        heard: list[list[int]] = []

        async def run() -> None:
            heard.append([])
            with pull.open() as partial:
                await pull.fetcher.fetch(pull.remote, partial, heard[-1].append)

        pull.run = run  # type: ignore[method-assign]
        slowest, kills, failures = await run_until_done(hub, pull, rng)
        outcome = outcome_of(hub, read(), kills, failures, slowest)
        assert pull.right, f"seed {seed}: {outcome}"
        assert all(one == sorted(one) for one in heard), f"seed {seed}"
    return outcome


def require_thrift(seed: int, outcome: Outcome, chunk: int) -> None:
    """What came twice was forced to, at the fetcher's end and at the hub's."""
    size = CHUNKS * chunk + 4321
    bound = (outcome.readings + 0.05) * size + 2 * outcome.silent * chunk
    sockets = SOCKETS * (outcome.struck + QUICK.connections * outcome.kills)

    assert outcome.read <= bound, f"seed {seed}: {outcome}"
    assert outcome.sent <= bound + sockets, f"seed {seed}: {outcome}"
    assert outcome.streams <= 1 + outcome.ignored / 2, f"seed {seed}: {outcome}"
    assert outcome.slowest_cancel_s <= 1, f"seed {seed}: {outcome}"


@pytest.mark.parametrize("seed", range(12))
async def test_schedule_ends_with_the_right_file(seed: int, tmp_path: Path) -> None:
    """Twelve, small."""
    require_thrift(seed, await run_schedule(seed, tmp_path, SMALL), SMALL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_three_hundred_schedules_end_with_the_right_file(tmp_path: Path) -> None:
    """All of them, large; prints what they cost."""
    spent: dict[float, list[Outcome]] = {}
    for seed in range(300):
        outcome = await run_schedule(seed, tmp_path / str(seed), LARGE)
        require_thrift(seed, outcome, LARGE)
        spent.setdefault(1.0 + (outcome.silent > 0) + outcome.streams, []).append(outcome)
        shutil.rmtree(tmp_path / str(seed))
    size = CHUNKS * LARGE + 4321
    for readings, outcomes in sorted(spent.items()):
        read, sent = (max(getattr(o, end) for o in outcomes) / size for end in ("read", "sent"))
        print(f"{readings:g} readings: {len(outcomes)}, at most {read:.3f} read, {sent:.3f} sent")
    slowest = max(outcome.slowest_cancel_s for outcomes in spent.values() for outcome in outcomes)
    print(f"slowest cancel {slowest:.2f} s")
