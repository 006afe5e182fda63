"""The daemon is started on demand, says so, and serves the next command too."""

import os
import signal
from pathlib import Path

import pytest

from tests.fakes.gemma_program import SOURCES, run_gemma

ENTRY = """from tests.fakes.fake_daemon import main
main()
"""
MERGE = "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings under which `python -m gemmad` is the fake, and `gemmad.api` the real one."""
    monkeypatch.setenv("GEMMA_SOCKET", str(tmp_path / "s"))
    package = tmp_path / "first" / "gemmad"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(MERGE)
    (package / "__main__.py").write_text(ENTRY)
    return {"PYTHONPATH": os.pathsep.join([str(package.parent), SOURCES])}


def test_a_command_starts_the_daemon_and_says_so(sources: dict[str, str], own_home: Path) -> None:
    """The next command finds it running."""
    logs = own_home / "logs"
    first = run_gemma("run", "nano", "hi", "-q", **sources)
    second = run_gemma("list", **sources)
    os.kill(int((logs / "gemmad-stderr.log").read_text().split()[2]), signal.SIGTERM)

    assert first.stdout == "echo: hi\n"
    assert first.stderr.startswith(f"Starting the Gemma daemon (log: {logs / 'gemmad.log'}) ...\n")
    assert "nano:latest" in second.stdout
    assert second.stderr == ""


def test_a_daemon_that_cannot_start_is_explained(sources: dict[str, str], own_home: Path) -> None:
    """Exit code, the log's last line, and where the log is."""
    result = run_gemma("list", **sources, FAKE_DAEMON_DIES="port 11435 is taken")
    log = own_home / "logs" / "gemmad-stderr.log"

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: The daemon ended with exit code 3; "
        f'the last line of its log is "port 11435 is taken". See {log}.'
    )


def test_serve_becomes_the_daemon(sources: dict[str, str]) -> None:
    """The same process, with its exit code."""
    result = run_gemma("serve", **sources, FAKE_DAEMON_DIES="bye")

    assert (result.returncode, result.stderr) == (3, "bye\n")
