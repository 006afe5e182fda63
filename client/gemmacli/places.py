"""Where the client keeps its history and finds the daemon's log, as the daemon computes it."""

import sys
from collections.abc import Mapping
from pathlib import Path

from gemmad.api.paths import home_override

_APP = "gemmad"


def log_path(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The file that the daemon logs to."""
    if home := home_override(env):
        return home / "logs" / "gemmad.log"
    match platform:
        case "darwin":
            return Path.home() / "Library" / "Logs" / _APP / "gemmad.log"
        case "win32":
            return _windows(env) / "Logs" / "gemmad.log"
        case _:
            return _state_home(env) / _APP / "log" / "gemmad.log"


def last_words_path(env: Mapping[str, str]) -> Path:
    """What a daemon started by the client prints: why it could not start, or how it crashed."""
    return log_path(env).with_name("gemmad-stderr.log")


def history_path(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The file of the questions typed so far."""
    if home := home_override(env):
        return home / "state" / "history"
    match platform:
        case "darwin":
            return Path.home() / "Library" / "Application Support" / _APP / "history"
        case "win32":
            return _windows(env) / "history"
        case _:
            return _state_home(env) / _APP / "history"


def make_private(directory: Path) -> None:
    """The directory exists; what had to be made, parents too, is its user's alone.

    Raises:
        OSError: it cannot be made.
    """
    for missing in reversed(
        [path for path in (directory, *directory.parents) if not path.exists()]
    ):
        missing.mkdir(mode=0o700, exist_ok=True)


def _state_home(env: Mapping[str, str]) -> Path:
    value = env.get("XDG_STATE_HOME", "").strip()
    return Path(value) if value else Path.home() / ".local" / "state"


def _windows(env: Mapping[str, str]) -> Path:
    base = env.get("LOCALAPPDATA")
    local = Path(base) if base else Path.home() / "AppData" / "Local"
    return local / _APP / _APP
