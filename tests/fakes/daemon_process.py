"""Starts the daemon as a process of its own, with fake or real runners; knows when it listens."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.fakes.builtin_pair import write_pair
from tests.fakes.memory_group import MemoryGroup

ROOT = Path(__file__).parents[2]
LISTENING = "listening on /"
_PATHS = ("daemon", "client", "modelfiles", ".")


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class DaemonProcess:
    """One home directory and the daemons started on it, one after the other."""

    def __init__(self, home: Path, **runner: object) -> None:
        self.home = home
        self.runner = runner
        self.port = free_port()
        self.socket = home / "run" / "gemmad.sock"
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        self.group: MemoryGroup | None = None  # where daemon and runners live

    @property
    def command(self) -> list[str]:
        """The program: the real daemon, whose runners are fakes and whose pair is a tiny one."""
        builtin = self.home.parent / "builtin"
        if not builtin.exists():
            write_pair(builtin)
        module = "tests.fakes.daemon_with_fake_runner"
        return [sys.executable, "-m", module, str(builtin), json.dumps(self.runner)]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "GEMMA_HOME": str(self.home),
            "GEMMA_HOST": f"127.0.0.1:{self.port}",
            "GEMMA_SPARE": "0",  # tests count processes, and other tests run beside them
            "PYTHONPATH": os.pathsep.join(str(ROOT / path) for path in _PATHS),
        }

    def launch(self, *flags: str, **env: str) -> subprocess.Popen[str]:
        """A daemon process; its words come on stderr."""
        command = [*self.command, *flags]
        return subprocess.Popen(
            self.group.inside(command) if self.group else command,
            env=self.environment | env,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, *flags: str, **env: str) -> list[str]:
        """The daemon listens on its socket; what it has said so far."""
        self.process = self.launch(*flags, **env)
        said = []
        for line in self.process.stderr:
            said.append(line)
            if LISTENING in line:
                return said
        raise AssertionError("the daemon did not start:\n" + "".join(said))

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self.process.kill()
        self._ended()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        self.process.stderr.read()
        self.process.stderr.close()
        code = self.process.wait(30)
        self.process = None
        return code

    def close(self) -> None:
        """Nothing of it is left running."""
        if self.process:
            self.kill()

    def runner_log(self) -> str:
        """What runners wrote to their log."""
        return "".join(path.read_text() for path in (self.home / "logs").glob("runner-*"))


class NanoDaemon(DaemonProcess):
    """The real daemon with real runners, which serve the built-in pair."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "gemmad"]

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"GEMMA_THREADS": "1"}  # other tests run beside it
