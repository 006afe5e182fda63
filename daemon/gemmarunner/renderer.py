"""Runs the template worker: starts it, gives it work, and kills it when it takes too long."""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn

from gemmad.api.errors import BadRequest

DEADLINE_S = 2.0  # for one prompt; the canonical template takes milliseconds
START_S = 30.0  # until the worker has imported Jinja on a busy machine
_PACKAGES = str(Path(__file__).resolve().parents[1])  # where the worker finds ours
_READ_BYTES = 1024 * 1024


class TemplateRenderer:
    """One worker process, started ahead of the first request and again when it had to die."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._lock = threading.Lock()  # one prompt at a time in the worker; any thread may render
        self._worker = _spawn()
        self._is_warm = False
        self._sent: str | None = None  # the template that the worker has

    def render(self, template: str, variables: Mapping[str, object]) -> str:
        """The prompt.

        Raises:
            BadRequest: the template failed, or took more time or memory than a prompt can need.
        """
        with self._lock:
            if not self._is_warm:
                self._answer("", {}, START_S)
                self._is_warm = True
            answer = self._answer(template, variables, self._deadline_s)
        if "error" in answer:
            _refuse(answer["error"])
        return answer["text"]

    def close(self) -> None:
        """The worker is gone."""
        self._worker.kill()
        self._worker.wait()
        for pipe in (self._worker.stdin, self._worker.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a request it never read
                    pipe.close()

    def _answer(
        self, template: str, variables: Mapping[str, object], patience_s: float
    ) -> dict[str, str]:
        until = time.monotonic() + patience_s
        wanted: dict[str, object] = {"variables": variables}
        if template != self._sent:
            wanted["template"] = template
        request = json.dumps(wanted).encode() + b"\n"
        try:
            assert self._worker.stdin is not None
            assert self._worker.stdout is not None
            self._worker.stdin.write(request)
            self._worker.stdin.flush()
            answer: dict[str, str] = json.loads(_line(self._worker.stdout, until))
            self._sent = template
        except TimeoutError:
            self._restart()
            _refuse(f"it took more than {patience_s:g} s")
        except (OSError, ValueError):
            self._restart()
            _refuse("its process died, probably for want of memory")
        return answer

    def _restart(self) -> None:
        self.close()
        self._worker = _spawn()
        self._is_warm = False
        self._sent = None


def _spawn() -> subprocess.Popen[bytes]:
    paths = (_PACKAGES, os.environ.get("PYTHONPATH"))
    return subprocess.Popen(
        (sys.executable, "-P", "-m", "gemmarunner.template_worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def _line(pipe: IO[bytes], until: float) -> bytes:
    """Bytes up to the end of the line.

    Raises:
        TimeoutError: it was not complete in time.
        OSError: the worker closed the pipe.
    """
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    line = bytearray()
    while not line.endswith(b"\n"):
        if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        data = os.read(pipe.fileno(), _READ_BYTES)
        if not data:
            raise OSError("the worker closed its pipe")
        line += data
    return bytes(line)


def _refuse(why: str) -> NoReturn:
    raise BadRequest(
        f"The model's chat template failed: {why}.",
        fix="Check the messages and tools, or send a raw prompt.",
    )
