"""Starts a daemon where none runs; the only place that waits for it."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from gemmacli.client import DaemonClient
from gemmacli.places import last_words_path, log_path, make_private
from gemmacli.transport import NotRunning
from gemmad.api.errors import DaemonUnreachable

DEADLINE_S = 20.0
LOSER_GRACE_S = 5.0
LOST_RACE = 69  # gemmad's exit code when another daemon is there, perhaps still starting
POLL_S = 0.03
DAEMON_COMMAND = (sys.executable, "-m", "gemmad")


def start_daemon(
    client: DaemonClient,
    env: Mapping[str, str],
    command: Sequence[str] = DAEMON_COMMAND,
    deadline_s: float = DEADLINE_S,
) -> str:
    """A detached daemon answers; returns its version.

    Raises:
        DaemonUnreachable: it ended or did not answer within the deadline.
    """
    click.echo(f"Starting the Gemma daemon (log: {log_path(env)}) ...", err=True)
    words = last_words_path(env)
    child = _spawn(command, env, words)
    return await_answer(client, child, words, time.monotonic() + deadline_s)


def _spawn(
    command: Sequence[str], env: Mapping[str, str], words: Path
) -> "subprocess.Popen[bytes]":
    # The child keeps this directory, so that relative settings mean the same to both.
    try:
        make_private(words.parent)
        words.unlink(missing_ok=True)  # a daemon that runs already keeps its own file
        words.touch(0o600)
        with words.open("ab") as output:
            return subprocess.Popen(
                command,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise DaemonUnreachable(f"The daemon could not be started: {error}.") from error


def await_answer(
    client: DaemonClient, child: "subprocess.Popen[bytes]", log: Path, deadline: float
) -> str:
    """The version of the daemon that answers, `child` or another that was faster.

    Raises:
        DaemonUnreachable: the child ended and nobody answers, or the deadline (monotonic) passed.
    """
    ended = False
    while time.monotonic() < deadline:
        if not ended and child.poll() is not None:
            ended = True
            grace_s = LOSER_GRACE_S if child.returncode == LOST_RACE else 0
            deadline = min(deadline, time.monotonic() + grace_s)
        try:
            return client.version()
        except NotRunning:
            time.sleep(POLL_S)
    raise _not_started(child, log)


def _not_started(child: "subprocess.Popen[bytes]", log: Path) -> DaemonUnreachable:
    if child.returncode is None:
        return DaemonUnreachable("The daemon started but does not answer yet.", fix=f"See {log}.")
    said = f'the last line of its log is "{last_line(log)}".'
    return DaemonUnreachable(
        f"The daemon ended with exit code {child.returncode}; {said}", fix=f"See {log}."
    )


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        tail = log.read_bytes()[-4096:].decode(errors="replace")
    except OSError:
        tail = ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1] if lines else "(it wrote no log)"
