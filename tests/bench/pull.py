"""Measures a pull of one large file from loopback: fetched, hashed, on the disk, committed.

    PYTHONPATH=daemon:. python -m tests.bench.pull --gib 4 --to /dev/shm --to /var/tmp

prints JSON lines, two a directory. The hub runs in a process of its own on the same cores and sends
by sendfile. `dd_new` is what dd writes to a new file of the same size in that directory in the same
run, with fsync at its end, as the store does, before the pull and after it; `dd_again` is the same
over pages already there. Where the two differ by much, new pages are what costs: a virtual machine
whose host lends it memory page by page. `sha256` is one core's hashing alone: no pull is faster.

The second line is the adoption of the same file from Hugging Face's cache in that directory;
`written_bytes` is what this process made the disk write, and `moved_bytes` what it wrote to files.
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
from gemmad.sources.hf_cache import cached
from gemmad.store.disk import Disk
from gemmad.store.partial import Partial
from gemmad.store.paths import StorePaths
from gemmad.store.store import Store
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


async def pull(url: str, entry: FileEntry, root: Path, connections: int) -> dict[str, float]:
    """Seconds of the clock, and of this process's CPU in its own code and in the system's."""
    fetcher = Fetcher(FetchLimits(connections=connections))
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with Partial(entry, StorePaths(root), Disk()) as partial:
        await fetcher.fetch(Remote(url), partial, lambda _: None)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(seconds, 2),
        "mb_s": round(entry.size / seconds / 1e6),
        "user_s": round(after.ru_utime - before.ru_utime, 2),
        "system_s": round(after.ru_stime - before.ru_stime, 2),
    }


def measure(url: str, entry: FileEntry, directory: Path, connections: int) -> dict[str, object]:
    """The line of a pull."""
    root = Path(tempfile.mkdtemp(dir=directory))
    try:
        before, again = (dd(root / "dd", entry.size) for _ in range(2))
        (root / "dd").unlink()
        pulled = asyncio.run(pull(url, entry, root, connections))
        blob = StorePaths(root).blob(entry.digest)
        assert blob.stat().st_size == entry.size
        blob.unlink()
        after = dd(root / "dd", entry.size)
        return {
            "bench": "pull",
            "directory": str(directory),
            "bytes": entry.size,
            "connections": connections,
            "cores": len(os.sched_getaffinity(0)),
            **pulled,
            "dd_new_mb_s": [round(before), round(after)],
            "dd_again_mb_s": round(again),
            "sha256_mb_s": round(sha256_rate()),
        }
    finally:
        shutil.rmtree(root)


def sha256_rate() -> float:
    """MB/s of one core."""
    data, began = os.urandom(TILE_BYTES), time.perf_counter()
    for _ in range(8):
        hashlib.sha256(data)
    return 8 * len(data) / (time.perf_counter() - began) / 1e6


def adopt(source: Path, entry: FileEntry, directory: Path) -> dict[str, object]:
    """The line of an adoption."""
    root = Path(tempfile.mkdtemp(dir=directory))
    try:
        sha256 = entry.digest.removeprefix("sha256:")
        blob = root / "hub" / "models--google--gemma-4-nano-it" / "blobs" / sha256
        blob.parent.mkdir(parents=True)
        shutil.copyfile(source, blob)
        os.sync()  # what the copy left to write is not the adoption's
        store, before, began = Store(root / "store"), own_io(), time.perf_counter()
        (found,) = cached(sha256, root / "hub")
        assert store.adopt(entry, found)
        seconds, after = time.perf_counter() - began, own_io()
        assert store.blobs.has(entry)
        return {
            "bench": "adopt",
            "directory": str(directory),
            "bytes": entry.size,
            "seconds": round(seconds, 2),
            "mb_s": round(entry.size / seconds / 1e6),
            "read_bytes": after["rchar"] - before["rchar"],
            "moved_bytes": after["wchar"] - before["wchar"],
            "written_bytes": after["write_bytes"] - before["write_bytes"],
            "linked": StorePaths(root / "store").blob(entry.digest).samefile(blob),
        }
    finally:
        shutil.rmtree(root)


def own_io() -> dict[str, int]:
    """What the system has counted for this process."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(count) for name, count in (line.split(": ") for line in lines)}


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
            print(json.dumps(adopt(path, entry, to)), flush=True)
        here.send("stop")
        server.join(10)


if __name__ == "__main__":
    main()
