"""Random schedules of network faults and kills: no wrong byte committed, hardly one wasted."""

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
from tests.fakes.hub.fetching import NAME, QUICK, REPO, Pull, until
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

    bytes_fetched: int
    kills: int
    silent: int  # answers with wrong bytes that look right
    slowest_cancel_s: float
    failures: int
    struck: int  # answers that a fault spoilt


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


async def run_until_done(hub: FakeHub, pull: Pull, rng: random.Random) -> Outcome:
    """The pull is started, cancelled and started again until the file is here."""
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
    struck = [s.fault for s in hub.requests if s.fault]
    silent = sum(fault in SILENT for fault in struck)
    return Outcome(hub.bytes_sent(), kills, silent, slowest, failures, len(struck))


async def run_schedule(seed: int, root: Path, chunk: int) -> Outcome:
    """One schedule from its seed; the blob is right at its end, and progress never went back."""
    rng, data = random.Random(seed), BYTES[: CHUNKS * chunk + 4321]
    with running_hub() as hub:
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
        outcome = await run_until_done(hub, pull, rng)
        assert pull.right, f"seed {seed}: {outcome}"
        assert all(one == sorted(one) for one in heard), f"seed {seed}"
    return outcome


def require_thrift(seed: int, outcome: Outcome, chunk: int) -> None:
    """Bytes stay within the promise; silent corruption costs a second reading, of pieces more."""
    size = CHUNKS * chunk + 4321
    readings = 2.0 + outcome.failures if outcome.silent else 1.0
    bound = (readings + 0.05) * size + chunk * (outcome.kills + 2 * outcome.silent)
    bound += SOCKETS * outcome.struck
    if chunk < LARGE:  # the sockets are as large as the chunks
        bound += SOCKETS * QUICK.connections * outcome.kills

    assert outcome.bytes_fetched <= bound, f"seed {seed}: {outcome}"
    assert outcome.slowest_cancel_s <= 1, f"seed {seed}: {outcome}"


@pytest.mark.parametrize("seed", range(30))
async def test_schedule_ends_with_the_right_file(seed: int, tmp_path: Path) -> None:
    """Thirty, small."""
    require_thrift(seed, await run_schedule(seed, tmp_path, SMALL), SMALL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_three_hundred_schedules_end_with_the_right_file(tmp_path: Path) -> None:
    """All of them, large; prints what they cost."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    slowest = 0.0
    for seed in range(300):
        outcome = await run_schedule(seed, tmp_path / str(seed), LARGE)
        require_thrift(seed, outcome, LARGE)
        share = (outcome.bytes_fetched - LARGE * outcome.kills) / (CHUNKS * LARGE)
        spent[outcome.silent > 0].append(share)
        slowest = max(slowest, outcome.slowest_cancel_s)
        shutil.rmtree(tmp_path / str(seed))
    for silent, shares in spent.items():
        shares.sort()
        middle, most = shares[len(shares) // 2], shares[-1]
        print(f"silent={silent}: {len(shares)}, bytes/size median {middle:.3f} max {most:.3f}")
    print(f"slowest cancel {slowest:.2f} s")
