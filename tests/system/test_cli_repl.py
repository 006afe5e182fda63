"""A conversation on a pseudo-terminal: typed lines, slash commands, Ctrl-C, Ctrl-D, history."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.fake_daemon import FakeDaemon
from tests.fakes.gemma_program import terminal

CTRL_C, CTRL_D, ENTER = "\x03", "\x04", "\r"


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """A daemon whose store is empty but can pull nano."""
    monkeypatch.setenv("GEMMA_SOCKET", str(tmp_path / "s"))
    with FakeDaemon(tmp_path / "s", models=()) as running:
        yield running


def test_a_conversation_is_held_and_left(daemon: FakeDaemon, own_home: Path) -> None:
    """The model is pulled, turns build on each other, and what was typed is kept privately."""
    with terminal("run", "nano") as shell:
        shell.wait_for(">>> ")
        shell.type("first question" + ENTER)
        shell.wait_for("echo: first question")
        shell.wait_for(">>> ")
        shell.type("second" + ENTER)
        shell.wait_for("echo: second")
        shell.wait_for(">>> ")
        shell.type("/bye" + ENTER)
        code = shell.exit_code()

    history = own_home / "state" / "history"
    assert code == 0
    assert [message["content"] for message in daemon.asked[-1]["messages"]] == [
        "first question",
        "echo: first question",
        "second",
    ]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "first question" in history.read_text()


def test_slash_commands_act_and_unknown_ones_are_explained(daemon: FakeDaemon) -> None:
    """Each answers at once; the conversation goes on after a mistake."""
    with terminal("run", "nano") as shell:
        for line, answer in [
            ("/?", "/set parameter NAME VALUE"),
            ("/set parameter temperature 0", "temperature is 0."),
            ("/set draft 4", "The draft depth is 4."),
            ("/set verbose", "Figures follow"),
            ("/show info", "Drafter"),
            ("/show parameters", "(set here)"),
            ("/list", "nano:latest"),
            ("/quit", "There is no command /quit."),
            ("/load other", "There is no model 'other' to pull."),
            ("hi", "tokens per round"),
            ("/clear", "forgotten"),
        ]:
            shell.wait_for(">>> ")
            shell.type(line + ENTER)
            shell.wait_for(answer)
        shell.wait_for(">>> ")
        shell.type(CTRL_D)
        assert shell.exit_code() == 0

    asked = daemon.asked[-1]
    assert (asked["options"], asked["draft"]) == ({"temperature": 0.0}, 4)


def test_ctrl_c_stops_the_answer_and_keeps_the_session(daemon: FakeDaemon, own_home: Path) -> None:
    """The daemon sees the client leave, the next question is answered; no history if unwanted."""
    with terminal("run", "nano", GEMMA_NOHISTORY="1") as shell:
        shell.wait_for(">>> ")
        shell.type("forever" + ENTER)
        shell.wait_for("on on on")
        shell.type(CTRL_C)
        shell.wait_for("(stopped)")
        assert daemon.state.left.wait(5)
        shell.wait_for(">>> ")
        shell.type('"""two' + ENTER)
        shell.wait_for("\n...")
        shell.type('lines"""' + ENTER)
        shell.wait_for("echo: two")
        shell.wait_for(">>> ")
        shell.type(CTRL_C)
        shell.wait_for("Use Ctrl-D or /bye to leave.")
        shell.wait_for(">>> ")
        shell.type(CTRL_D)
        assert shell.exit_code() == 0

    assert daemon.asked[-1]["messages"][-1]["content"] == "two\nlines"
    assert not (own_home / "state" / "history").exists()
