"""The list that is printed without click is the command's own, and leaves the rest to it."""

import os
from pathlib import Path

import pytest

from gemmacli.quick import list_models
from tests.fakes.fake_daemon import FakeDaemon
from tests.unit.client.conftest import Gemma


def test_the_quick_list_is_the_commands(
    gemma: Gemma, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table on stdout, what is broken on stderr."""
    daemon.state.models["bad:latest"] = {"name": "bad:latest", "broken": "a blob is missing"}
    expected = gemma("list")

    assert list_models(os.environ)
    assert (expected.stdout, expected.stderr) == tuple(capsys.readouterr())


def test_without_a_daemon_the_command_starts_one(
    socket_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was printed yet."""
    assert not list_models(os.environ)
    assert capsys.readouterr().out == ""


def test_another_version_is_the_commands_to_warn_about(
    socket_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was printed yet."""
    with FakeDaemon(socket_file, version="9.9.9"):
        assert not list_models(os.environ)
    assert capsys.readouterr().out == ""
