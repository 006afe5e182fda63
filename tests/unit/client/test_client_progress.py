"""Pull progress is a bar that fits on a terminal, and a line a phase elsewhere."""

import pytest

from gemmacli.progress import BarScreen, PhaseScreen, bar, line

BLOB = {"status": "pulling 3f2a9c0d11e2", "total": 27_400_000}


def test_a_line_shows_share_bytes_and_rate() -> None:
    """The rate appears once there was time to measure it."""
    text = line({**BLOB, "completed": 13_700_000}, 2.0, 100)

    assert text.endswith(" 50% 14 MB/27 MB 6.8 MB/s")
    assert text.count("█") == 12


def test_a_line_fits_the_terminal() -> None:
    """A line that wraps could not be redrawn."""
    assert len(line({**BLOB, "completed": 1}, 2.0, 40)) == 39


def test_a_bar_has_one_width() -> None:
    """Whatever it shows."""
    assert {len(bar(share)) for share in (0, 0.01, 0.5, 1)} == {26}


def test_phases_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A log is not filled with percentages."""
    screen = PhaseScreen()
    for completed in range(3):
        screen.show({**BLOB, "completed": completed})
    screen.show({"status": "success"})
    screen.finish()

    assert capsys.readouterr().err == "pulling 3f2a9c0d11e2 (27 MB)\nsuccess\n"


def test_a_bar_is_redrawn_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    """Not more often than the eye sees; the last state of each phase stays."""
    screen = BarScreen(clock=iter([0.0, 0.0, 0.01, 1.0, 1.01, 1.02, 1.03, 1.04]).__next__)
    for completed in (0, 1_000_000, 27_400_000):
        screen.show({**BLOB, "completed": completed})
    screen.show({"status": "success"})
    screen.finish()
    lines = capsys.readouterr().err.split("\n")

    assert lines[0].count("pulling") == 3
    assert "100%" in lines[0].split("\r")[-1]
    assert lines[1].endswith("success")
