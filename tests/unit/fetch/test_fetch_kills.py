"""A fetch that is killed by SIGKILL goes on where it was."""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.hub.fetching import NAME, REPO, blob_path, entry_of
from tests.fakes.hub.server import FakeHub, running_hub

MIB = 1 << 20
KILLS = 20
ROOT = Path(__file__).parents[3]


def start(hub: FakeHub, data: bytes, root: Path) -> "subprocess.Popen[bytes]":
    """The process that fetches."""
    entry = entry_of(data)
    arguments = [hub.file_url(REPO, NAME), entry.digest, str(entry.size), str(root)]
    paths = os.pathsep.join(str(ROOT / name) for name in ("daemon", "."))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.hub.fetch_process", *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=root,
    )


def wait_until(process: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> None:
    """The condition holds, or the process is done."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_fetches_lose_no_more_than_a_chunk_each(tmp_path: Path) -> None:
    """Twenty SIGKILLs at random moments; what was fetched twice is counted, and little."""
    rng, kills = random.Random(5), 0
    data = b"".join(rng.randbytes(MIB) for _ in range(400))
    with running_hub() as hub:
        hub.narrow()
        hub.add(REPO, {NAME: data})
        code = None
        while code != 0:
            mark = hub.bytes_sent() + rng.randrange(1, 2 * len(data) // KILLS)
            process = start(hub, data, tmp_path)
            if kills < KILLS:
                wait_until(process, lambda mark=mark: hub.bytes_sent() >= mark)
            else:
                process.wait(60)
            process.kill()
            code = process.wait(10)
            kills += code != 0
        fetched = hub.bytes_sent()
    print(
        f"{kills} kills, {(fetched - len(data)) / MIB:.1f} MiB fetched twice of {len(data) / MIB}"
    )

    blob = blob_path(tmp_path, entry_of(data))
    assert hashlib.sha256(blob.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert kills >= KILLS // 2
    assert fetched <= 1.05 * len(data) + 16 * MIB * kills
