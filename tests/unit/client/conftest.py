"""A fake daemon on a socket of the test's own, and `gemma` run in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gemmacli.commandline import cli
from tests.fakes.fake_daemon import FakeDaemon

Gemma = Callable[..., Result]


@pytest.fixture
def socket_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the client looks for the daemon."""
    path = tmp_path / "s"
    monkeypatch.setenv("GEMMA_SOCKET", str(path))
    return path


@pytest.fixture
def daemon(socket_file: Path) -> Iterator[FakeDaemon]:
    """A daemon whose store holds nano."""
    with FakeDaemon(socket_file) as running:
        yield running


@pytest.fixture
def gemma() -> Gemma:
    """Runs a command line; `stdin` is what is piped in."""

    def run(*args: str, stdin: str = "") -> Result:
        return CliRunner().invoke(cli, args, input=stdin, prog_name="gemma")

    return run
