"""`gemma` as a process: streams, exit codes, and no traceback whatever happens."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.fake_daemon import FakeDaemon
from tests.fakes.gemma_program import COMMAND, environment, run_gemma, terminal


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """A daemon whose store holds nano, where the program looks for it."""
    monkeypatch.setenv("GEMMA_SOCKET", str(tmp_path / "s"))
    with FakeDaemon(tmp_path / "s") as running:
        yield running


def test_one_shot_through_pipes(daemon: FakeDaemon) -> None:
    """The answer alone on stdout, its figures on stderr, not dim since no terminal is there."""
    result = run_gemma("run", "nano", "hello there")

    assert (result.returncode, result.stdout) == (0, "echo: hello there\n")
    assert result.stderr.startswith("3 tokens · 200 tok/s")
    assert "\x1b" not in result.stderr


def test_piped_text_is_the_prompt(daemon: FakeDaemon) -> None:
    """`cat question | gemma run nano --json`."""
    result = run_gemma("run", "nano", "--json", stdin="a question")

    assert json.loads(result.stdout)["response"] == "echo: a question"


def test_a_reader_that_leaves_early_is_no_error_text(daemon: FakeDaemon) -> None:
    """`gemma run ... | head -1`: the program ends quietly, and the daemon stops the work."""
    with subprocess.Popen(
        [*COMMAND, "run", "nano", "forever"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(3) == b"on "
        process.stdout.close()
        said = process.stderr.read()

    assert said == b""
    assert daemon.state.left.wait(5)


def test_ctrl_c_ends_with_130(daemon: FakeDaemon) -> None:
    """Without a traceback; the daemon sees the client leave."""
    with subprocess.Popen(
        [*COMMAND, "run", "nano", "forever"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        process.stdout.read(3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)

    assert process.returncode == 130
    assert b"Traceback" not in said
    assert daemon.state.left.wait(5)


def test_an_error_is_one_line(daemon: FakeDaemon) -> None:
    """Exit code 1, nothing on stdout."""
    result = run_gemma("show", "other")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: model 'other' not found. Pull it with: gemma pull other\n"


def test_a_silent_pipe_is_explained(daemon: FakeDaemon) -> None:
    """A prompt is given but standard input is an open pipe: the user is told what is awaited."""
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [*COMMAND, "run", "nano", "hi", "-q"],
        stdin=read_end,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        os.close(read_end)
        assert process.stderr is not None
        assert process.stdout is not None
        assert b"standard input" in process.stderr.readline()
        os.close(write_end)
        assert process.stdout.read() == b"echo: hi\n"


def test_odd_bytes_and_poor_terminals_are_no_traceback(daemon: FakeDaemon) -> None:
    """What cannot be read or written is replaced; a full disk is one line."""
    command = [*COMMAND, "run", "nano"]
    western = environment(PYTHONIOENCODING="latin-1")
    poor = subprocess.run(command, input=b"a \xff b", capture_output=True, env=western)
    with open("/dev/full", "wb") as full:
        crowded = subprocess.run(
            [*command, "hi"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
        )

    assert (poor.returncode, poor.stdout) == (0, b"echo: a ? b\n")
    assert crowded.returncode == 1
    assert b"Traceback" not in crowded.stderr
    assert crowded.stderr.startswith(b"Error: No space left on device")


def test_figures_are_dim_and_lines_wrap_on_a_terminal(daemon: FakeDaemon) -> None:
    """A terminal of 80 columns gets lines that fit."""
    with terminal("run", "nano", "word " * 30) as shell:
        shell.wait_for("first token")
        code = shell.exit_code()

    lines = shell.screen.replace("\r", "").split("\n")
    assert code == 0
    assert lines[0].startswith("echo: word")
    assert max(len(line) for line in lines[:2]) < 80
