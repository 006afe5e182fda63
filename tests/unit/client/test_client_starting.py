"""A daemon is started when none runs, once, and its death is told."""

import os
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from gemmacli.client import DaemonClient
from gemmacli.reaching import connect
from gemmacli.starting import await_answer, last_line, start_daemon
from gemmacli.transport import NotRunning, endpoint
from gemmad.api.errors import DaemonUnreachable
from tests.fakes.fake_daemon import FakeDaemon


def failing(text: str, code: int) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})")


def start(command: tuple[str, ...]) -> str:
    return start_daemon(DaemonClient(endpoint(os.environ)), os.environ, command)


@pytest.mark.usefixtures("socket_file")
def test_a_daemon_that_dies_is_told_with_its_last_words(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code, last log line and where to read more."""
    with pytest.raises(DaemonUnreachable) as caught:
        start(failing("GEMMA_HOST is '?', which has no valid port.", 2))

    log, words = own_home / "logs" / "gemmad.log", own_home / "logs" / "gemmad-stderr.log"
    assert "exit code 2; the last line of its log is \"GEMMA_HOST is '?'" in str(caught.value)
    assert str(words) in str(caught.value)
    assert capsys.readouterr().err == f"Starting the Gemma daemon (log: {log}) ...\n"


def test_losing_the_race_to_another_client_is_no_failure(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Our child gives up since another daemon serves; that one is used."""
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(69)"])
    child.wait()
    client = DaemonClient(endpoint(os.environ))

    assert daemon.state.version == await_answer(client, child, tmp_path / "log", monotonic() + 5)


@pytest.mark.usefixtures("socket_file")
def test_a_daemon_is_not_started_where_that_was_not_asked_for() -> None:
    """`gemma ps` looks, and leaves things as they are."""
    with pytest.raises(NotRunning):
        connect(os.environ, start=False)


def test_no_daemon_is_started_for_a_remote_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would not be found there."""

    def refuse(_: DaemonClient) -> str:
        raise NotRunning("No daemon answers.")

    monkeypatch.setattr(DaemonClient, "version", refuse)
    with pytest.raises(NotRunning):
        connect({"GEMMA_HOST": "10.0.0.1:1"})


def test_another_version_is_warned_about_once(
    socket_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command goes on."""
    with FakeDaemon(socket_file, version="9.9.9"):
        connect(os.environ)

    assert capsys.readouterr().err.count("the running daemon is 9.9.9") == 1


def test_last_line_skips_blank_ones(tmp_path: Path) -> None:
    """The line that says something."""
    log = tmp_path / "log"
    log.write_text("first\nthe reason\n\n  \n")

    assert last_line(log) == "the reason"
    assert last_line(tmp_path / "none") == "(it wrote no log)"
