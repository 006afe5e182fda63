"""Measures a pull of one large file from loopback: fetched, hashed, on the disk, committed.

    PYTHONPATH=daemon:. python -m tests.bench.pull --gib 4 --to /dev/shm --to /var/tmp

prints a JSON line a directory. The hub runs in a process of its own on the same cores and sends by
sendfile. `dd_new` is what dd writes to a new file of the same size in that directory in the same
run, with fsync at its end, as the store does; `dd_again` is the same over pages already there.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from gemmad.core import ByteCount, Digest, FileEntry
from gemmad.fetch.fetcher import Fetcher
from gemmad.fetch.limits import FetchLimits
from gemmad.sources.half import Remote
from gemmad.store.disk import Disk
from gemmad.store.partial import Partial
from gemmad.store.paths import StorePaths
from tests.fakes.hub.server import running_hub

REPO, NAME = "google/gemma-4-nano-it", "model.safetensors"
MIB = 1 << 20
TILE_BYTES = 16 * MIB


def write_source(path: Path, size: int) -> FileEntry:
    """A file of that size and what it is."""
    tile, whole = os.urandom(TILE_BYTES), hashlib.sha256()
    with path.open("wb") as file:
        for begin in range(0, size, TILE_BYTES):
            piece = tile[: size - begin]
            file.write(piece)
            whole.update(piece)
    return FileEntry(Digest(f"sha256:{whole.hexdigest()}"), ByteCount(size))


def serve(path: Path, sha256: str, pipe: Connection) -> None:
    """The hub, until the pipe says so."""
    with running_hub() as hub:
        hub.add(REPO, {NAME: path}, sha256={NAME: sha256})
        pipe.send(hub.file_url(REPO, NAME))
        pipe.recv()


def dd(path: Path, size: int) -> float:
    """MB/s of dd into the file."""
    command = ["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={size // MIB}"]
    done = subprocess.run(
        [*command, "conv=notrunc,fsync"], check=True, capture_output=True, text=True
    )
    seconds = re.search(r"copied, ([0-9.]+) s", done.stderr)
    assert seconds
    return size / float(seconds[1]) / 1e6


async def pull(url: str, entry: FileEntry, root: Path, connections: int) -> tuple[float, float]:
    """Seconds of the clock and of this process's CPU."""
    fetcher = Fetcher(FetchLimits(connections=connections))
    began, used = time.perf_counter(), cpu_seconds()
    with Partial(entry, StorePaths(root), Disk()) as partial:
        await fetcher.fetch(Remote(url), partial, lambda _: None)
    return time.perf_counter() - began, cpu_seconds() - used


def cpu_seconds() -> float:
    """What this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(url: str, entry: FileEntry, directory: Path, connections: int) -> dict[str, object]:
    """One line."""
    root = Path(tempfile.mkdtemp(dir=directory))
    try:
        new, again = (dd(root / "dd", entry.size) for _ in range(2))
        (root / "dd").unlink()
        seconds, used = asyncio.run(pull(url, entry, root, connections))
        assert StorePaths(root).blob(entry.digest).stat().st_size == entry.size
        return {
            "bench": "pull",
            "directory": str(directory),
            "bytes": entry.size,
            "connections": connections,
            "cores": len(os.sched_getaffinity(0)),
            "seconds": round(seconds, 2),
            "mb_s": round(entry.size / seconds / 1e6),
            "client_cpu_s": round(used, 2),
            "dd_new_mb_s": round(new),
            "dd_again_mb_s": round(again),
        }
    finally:
        shutil.rmtree(root)


def main() -> None:
    """Prints a line a directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--from", dest="source", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--to", type=Path, action="append", default=[])
    parser.add_argument("--connections", type=int, default=FetchLimits().connections)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.source) as directory:
        path = Path(directory, "source")
        entry = write_source(path, int(arguments.gib * 1024) * MIB)
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        sha256 = entry.digest.removeprefix("sha256:")
        server = context.Process(target=serve, args=(path, sha256, there), daemon=True)
        server.start()
        url = here.recv()
        for to in (arguments.to or [Path("/dev/shm")]) * arguments.repeat:
            print(json.dumps(measure(url, entry, to, arguments.connections)), flush=True)
        here.send("stop")
        server.join(10)


if __name__ == "__main__":
    main()
