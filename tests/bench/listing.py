"""Measures `gemma list` from the start of the command to its end, with many names in the store.

    quiet machine: PYTHONPATH=daemon:client:modelfiles:. python -m tests.bench.listing --names 200

prints one JSON line: wall milliseconds of the command (`list_ms`), of the same command's `--help`
and of an interpreter that does nothing (the floors), and of the daemon's answer alone (`tags_ms`),
each as minimum and median of `--repeats`; `first_tags_ms` is the answer of a daemon just started.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gemmacli.client import DaemonClient
from gemmacli.transport import endpoint
from tests.fakes.daemon_process import NanoDaemon
from tests.fakes.gemma_program import COMMAND


def milliseconds(act: Callable[[], object]) -> float:
    """How long `act` took."""
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


def spread(act: Callable[[], object], repeats: int) -> dict[str, float]:
    """Minimum and median."""
    taken = [milliseconds(act) for _ in range(repeats)]
    return {"min": round(min(taken), 1), "median": round(statistics.median(taken), 1)}


def measure(daemon: NanoDaemon, names: int, repeats: int) -> dict[str, object]:
    """The line of a store with that many names."""
    env = dict(os.environ) | daemon.environment
    client = DaemonClient(endpoint(daemon.environment))
    daemon.start()
    list(client.pull("nano"))
    for number in range(names - 1):
        client.copy("nano", f"nano:copy{number}")
    daemon.stop()
    time.sleep(2.1)  # files this young are read again each time
    daemon.start()
    first = milliseconds(client.models)

    def run(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run(command, env=env, check=True, capture_output=True)

    shown = subprocess.run([*COMMAND, "list"], env=env, check=True, capture_output=True)
    assert len(shown.stdout.splitlines()) == names + 1
    return {
        "bench": "listing",
        "names": names,
        "list_ms": spread(run(*COMMAND, "list"), repeats),
        "help_ms": spread(run(*COMMAND, "--help"), repeats),
        "python_ms": spread(run(sys.executable, "-c", "pass"), repeats),
        "tags_ms": spread(client.models, repeats),
        "first_tags_ms": round(first, 1),
    }


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        daemon = NanoDaemon(Path(directory) / "home")
        try:
            print(json.dumps(measure(daemon, arguments.names, arguments.repeats)))
        finally:
            daemon.close()


if __name__ == "__main__":
    main()
