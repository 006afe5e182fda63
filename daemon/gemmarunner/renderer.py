"""Runs the template worker: starts it, gives it work, and kills it when it takes too long.

Prompts that are wanted at once are given to it at once: it renders one while the reader of another
goes on, and neither process sleeps and is woken for each.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from gemmad.api.errors import BadRequest

DEADLINE_S = 2.0  # for one prompt; the canonical template takes milliseconds
START_S = 30.0  # until the worker has imported Jinja on a busy machine
_PACKAGES = str(Path(__file__).resolve().parents[1])  # where the worker finds ours
_READ_BYTES = 1024 * 1024
_TOGETHER_CHARACTERS = 1024 * 1024  # of prompts in one request; a longer one goes alone


class TemplateRenderer:
    """One worker process, started ahead of the first request and again when it had to die."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._lock = threading.Lock()  # one prompt at a time in the worker; any thread may render
        self._worker = _spawn()
        self._lines = _Lines()
        self._is_warm = False
        self._sent: str | None = None  # the template that the worker has

    def render(self, template: str, variables: Mapping[str, object]) -> str:
        """The prompt.

        Raises:
            BadRequest: the template failed, or took more time or memory than a prompt can need.
        """
        (answer,) = self.render_all(template, [variables])
        if isinstance(answer, BadRequest):
            raise answer
        return answer

    def render_all(
        self, template: str, prompts: Sequence[Mapping[str, object]]
    ) -> Generator[str | BadRequest, None, None]:
        """The prompts in order, each as soon as it is written, or why it is not.

        One that fails harms no other. Nobody else has a turn until it is read or closed.
        """
        waiting = deque(json.dumps(variables) for variables in prompts)
        with self._lock:
            while waiting:
                asked = 0
                try:
                    self._warm_up()
                    asked = self._ask(template, waiting)
                    while asked:
                        answer = self._answer(self._deadline_s)
                        waiting.popleft()
                        asked -= 1
                        yield answer
                except TimeoutError as error:
                    waiting.popleft()
                    self._restart()
                    yield _refusal(str(error))
                except (OSError, ValueError):
                    waiting.popleft()
                    self._restart()
                    yield _refusal("its process died, probably for want of memory")
                except GeneratorExit:
                    if asked:  # nobody would read the answers
                        self._restart()
                    raise

    def close(self) -> None:
        """The worker is gone."""
        self._worker.kill()
        self._worker.wait()
        for pipe in (self._worker.stdin, self._worker.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a request it never read
                    pipe.close()

    def _warm_up(self) -> None:
        """The worker has imported what it needs; that is not the first prompt's time."""
        if not self._is_warm:
            self._ask("", ["{}"])
            self._answer(START_S)
            self._is_warm = True

    def _ask(self, template: str, waiting: Iterable[str]) -> int:
        """Gives the worker the first of the prompts; so many."""
        together: list[str] = []
        size = 0
        for prompt in waiting:
            size += len(prompt)
            if together and size > _TOGETHER_CHARACTERS:
                break
            together.append(prompt)
        told = "" if template == self._sent else f'"template": {json.dumps(template)}, '
        self._sent = template
        assert self._worker.stdin is not None
        self._worker.stdin.write(f'{{{told}"prompts": [{", ".join(together)}]}}\n'.encode())
        self._worker.stdin.flush()
        return len(together)

    def _answer(self, patience_s: float) -> str | BadRequest:
        assert self._worker.stdout is not None
        line = self._lines.next(self._worker.stdout, patience_s)
        answer: dict[str, str] = json.loads(line)
        return _refusal(answer["error"]) if "error" in answer else answer["text"]

    def _restart(self) -> None:
        self.close()
        self._worker = _spawn()
        self._lines = _Lines()
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


class _Lines:
    """What one worker wrote, line by line."""

    def __init__(self) -> None:
        self._read = bytearray()  # and not yet given

    def next(self, pipe: IO[bytes], patience_s: float) -> bytes:
        """The next line.

        Raises:
            TimeoutError: it was not complete in time.
            OSError: the worker closed the pipe.
        """
        until, searched = time.monotonic() + patience_s, 0
        while (end := self._read.find(b"\n", searched)) < 0:
            searched = len(self._read)
            poller = select.poll()
            poller.register(pipe, select.POLLIN)
            if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
                raise TimeoutError(f"it took more than {patience_s:g} s")
            data = os.read(pipe.fileno(), _READ_BYTES)
            if not data:
                raise OSError("the worker closed its pipe")
            self._read += data
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line


def _refusal(why: str) -> BadRequest:
    return BadRequest(
        f"The model's chat template failed: {why}.",
        fix="Check the messages and tools, or send a raw prompt.",
    )
