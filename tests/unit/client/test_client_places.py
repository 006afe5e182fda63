"""The client computes the same directories as the daemon's platformdirs."""

import stat
from pathlib import Path

import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from gemmacli.places import history_path, log_path, make_private


def test_gemma_home_holds_everything(tmp_path: Path) -> None:
    """One variable moves log and history together."""
    env = {"GEMMA_HOME": str(tmp_path)}

    assert log_path(env) == tmp_path / "logs" / "gemmad.log"
    assert history_path(env) == tmp_path / "state" / "history"


@pytest.mark.parametrize(("platform", "kind"), [("linux", Unix), ("darwin", MacOS)])
def test_default_places_are_those_of_platformdirs(
    platform: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Daemon and client agree without the client importing platformdirs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    directories = kind("gemmad")

    assert log_path({}, platform).parent == Path(directories.user_log_dir)
    assert history_path({}, platform).parent == Path(directories.user_state_dir)


def test_a_directory_made_is_private(tmp_path: Path) -> None:
    """Its parents too; one that exists stays as it is."""
    tmp_path.chmod(0o755)
    make_private(tmp_path / "home" / "logs")
    made = [tmp_path, tmp_path / "home", tmp_path / "home" / "logs"]

    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o755, 0o700, 0o700]


def test_xdg_state_home_is_obeyed() -> None:
    """The variable that Linux users move state with."""
    env = {"XDG_STATE_HOME": "/elsewhere"}

    assert log_path(env, "linux") == Path("/elsewhere/gemmad/log/gemmad.log")
