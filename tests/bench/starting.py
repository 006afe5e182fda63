"""Measures how soon a daemon answers again after a SIGKILL in the middle of a pull.

    quiet machine: PYTHONPATH=daemon:client:modelfiles:. python -m tests.bench.starting --kills 15

prints one JSON line: `ready_s` from the start of the process until `/api/version` is answered, as
minimum, median and maximum; `cpu_s` is the median of what the process had used of the CPU by then.
The pull is of a hub on this machine, slowed down so that no kill comes too late.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from gemmacli.client import DaemonClient
from gemmacli.transport import NotRunning, endpoint
from gemmad.api.errors import GemmaError
from tests.fakes.hub.server import running_hub
from tests.fakes.hub_pairs import RealHubDaemon, add_pair

REPO = "google/gemma-4-nano-it"
WEIGHTS_BYTES = 64 << 20
LOOK_S = 0.005
SLOWLY = {"GEMMA_PULL_RATE": "8M"}


def started(daemon: RealHubDaemon, client: DaemonClient) -> tuple[float, float]:
    """Seconds of the clock until it answers, and of its CPU."""
    began = time.perf_counter()
    daemon.process = daemon.launch(**SLOWLY)
    while True:
        try:
            client.version()
            break
        except NotRunning:
            time.sleep(LOOK_S)
    taken = time.perf_counter() - began
    used = psutil.Process(daemon.process.pid).cpu_times()
    return taken, used.user + used.system


def killed_in_a_pull(daemon: RealHubDaemon, client: DaemonClient) -> None:
    """The daemon is dead, and bytes of its pull have arrived."""
    arriving = threading.Event()

    def pull() -> None:
        with suppress(GemmaError):
            for record in client.pull(f"hf.co/{REPO}"):
                if record.get("completed"):
                    arriving.set()

    thread = threading.Thread(target=pull)
    thread.start()
    assert arriving.wait(30)
    daemon.kill()
    thread.join()


def measure(daemon: RealHubDaemon, kills: int) -> dict[str, object]:
    """The line."""
    client = DaemonClient(endpoint(daemon.environment))
    daemon.start(**SLOWLY)
    taken = []
    for _ in range(kills):
        killed_in_a_pull(daemon, client)
        taken.append(started(daemon, client))
    ready, cpu = zip(*taken, strict=True)
    return {
        "bench": "starting",
        "kills": kills,
        "ready_s": [
            round(value, 3) for value in (min(ready), statistics.median(ready), max(ready))
        ],
        "cpu_s": round(statistics.median(cpu), 2),
    }


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, running_hub() as hub:
        add_pair(hub, REPO, WEIGHTS_BYTES, seed=1)
        daemon = RealHubDaemon(Path(directory) / "home", hub)
        try:
            print(json.dumps(measure(daemon, arguments.kills)))
        finally:
            daemon.close()


if __name__ == "__main__":
    main()
