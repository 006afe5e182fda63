"""Where the daemon's words go."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemmad.logs import leave_plain_file, start_logging


@pytest.fixture(autouse=True)
def root_logger_restored() -> Iterator[None]:
    """The handlers of this test end with it."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in before:
            root.removeHandler(handler)
            handler.close()
    root.handlers[:], root.level = before, level


def test_stderr_in_a_plain_file_gets_the_start_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that nobody rotates must not grow for months; the rotated log has everything."""
    with (tmp_path / "stderr").open("w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        start_logging(tmp_path, "info")
        logging.info("first")
        leave_plain_file()
        logging.info("second")
    kept = (tmp_path / "gemmad.log").read_text()

    assert "first" in kept
    assert "second" in kept
    assert "second" not in (tmp_path / "stderr").read_text()
