"""Runs the real `gemma` in a process of its own, with pipes or on a pseudo-terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("daemon", "client", "modelfiles", "."))
COMMAND = (sys.executable, "-m", "gemmacli")
DEADLINE_S = 50.0  # a runner's first load beside a busy build takes ten


def environment(**extra: str) -> dict[str, str]:
    """This test's environment, with the sources on the path and a terminal that asks nothing."""
    settings = {"PYTHONPATH": SOURCES, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    return {**os.environ, **settings, "COLUMNS": "80", "LINES": "24", **extra}


def run_gemma(
    *args: str, stdin: str | None = None, **extra: str
) -> "subprocess.CompletedProcess[str]":
    """A finished `gemma`; without `stdin` its standard input is empty."""
    return subprocess.run(
        [*COMMAND, *args],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        env=environment(**extra),
        timeout=DEADLINE_S,
        check=False,
    )


class Terminal:
    """A `gemma` on a pseudo-terminal: what it printed, and a keyboard."""

    def __init__(self, process: "subprocess.Popen[bytes]", master: int) -> None:
        self.process = process
        self._master = master
        self._unread = ""
        self.screen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """`text` has appeared after what was waited for before."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self._unread:
            assert time.monotonic() < deadline, f"{text!r} not in {self.screen!r}"
            assert self._read(), f"ended before {text!r}: {self.screen!r}"
        self._unread = self._unread.partition(text)[2]

    def exit_code(self) -> int:
        while self._read():
            pass
        return self.process.wait(DEADLINE_S)

    def _read(self) -> bool:
        """False when the program has closed the terminal."""
        ready, _, _ = select.select([self._master], [], [], DEADLINE_S)
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # Linux: EIO when the other end is closed
            data = b""
        text = re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])", "", data.decode(errors="replace"))
        self._unread += text
        self.screen += text
        return bool(data)


@contextmanager
def terminal(*args: str, **extra: str) -> Iterator[Terminal]:
    """`gemma` with a terminal on all three streams, its controlling one, so that Ctrl-C works."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *args],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(**extra),
        preexec_fn=_take_terminal,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _take_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
