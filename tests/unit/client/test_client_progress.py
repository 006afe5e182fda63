"""Pull progress is a bar for each half on a terminal, and a line a phase elsewhere."""

import pytest

from gemmacli.progress import BarScreen, PhaseScreen, wording
from gemmacli.transfer import Transfer, bar, line

BLOB = {"status": "pulling 3f2a9c0d11e2", "digest": "sha256:3f", "total": 27_400_000}
TARGET = {**BLOB, "kind": "target"}
DRAFTER = {**BLOB, "kind": "drafter", "digest": "sha256:77", "status": "pulling 77"}


def transfer(*records: tuple[float, dict]) -> Transfer:
    """A part that heard the records at their times."""
    (first, record), *rest = records
    seen = Transfer.of(record, first)
    for now, record in rest:
        seen.add(record, now)
    return seen


def test_a_line_shows_share_bytes_rate_and_time_left() -> None:
    """The rate appears once there was time to measure it."""
    seen = transfer((0, {**TARGET, "completed": 0}), (2, {**TARGET, "completed": 13_700_000}))
    text = line(seen, 2.0, 120)

    assert text.endswith(" 50% 14 MB/27 MB 6.8 MB/s, 2.00 s left")
    assert text.startswith("target     ▕████████████")


def test_what_was_here_before_did_not_come_at_any_rate() -> None:
    """Of several files too: each brings what it had to the sum, none to the speed."""
    other = {**TARGET, "digest": "sha256:40", "completed": 20_000_000, "resumed": 20_000_000}
    seen = transfer(
        (0, {**TARGET, "completed": 10_000_000, "resumed": 10_000_000}),
        (1, other),
        (2, {**TARGET, "completed": 12_000_000}),
    )

    assert (seen.resumed, seen.completed, seen.total) == (30_000_000, 32_000_000, 54_800_000)
    assert seen.rate(2.0) == 1_000_000
    assert "(30 MB already here)" in line(seen, 2.0, 120)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """A pull that stalls says so."""
    seen = transfer(*((float(s), {**TARGET, "completed": min(s, 5) * 10**6}) for s in range(30)))

    assert seen.rate(29.0) == 0


def test_a_line_fits_the_terminal() -> None:
    """A line that wraps could not be redrawn."""
    assert len(line(transfer((0, {**TARGET, "completed": 1})), 2.0, 40)) == 39


def test_a_bar_has_one_width() -> None:
    """Whatever it shows."""
    assert {len(bar(share)) for share in (0, 0.01, 0.5, 1)} == {26}


def test_phases_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A log is not filled with percentages, also where files come side by side."""
    screen = PhaseScreen()
    for completed in range(3):
        screen.show({**TARGET, "completed": completed})
        screen.show({**DRAFTER, "completed": 400_000 + completed, "resumed": 400_000})
    screen.show({"status": "success"})
    screen.finish()

    assert capsys.readouterr().err == (
        "pulling 3f2a9c0d11e2 (target, 27 MB)\n"
        "pulling 77 (drafter, 27 MB, 400 KB already here)\nsuccess\n"
    )


def test_bars_of_both_halves_are_redrawn_in_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not more often than the eye sees; the last state stays."""
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *_: False)
    times = iter([0.0, 0.01, 0.02, 1.0, 1.5, 1.6])
    screen = BarScreen(clock=times.__next__)
    for record in (TARGET, DRAFTER, TARGET, DRAFTER):
        screen.show({**record, "completed": 27_400_000 if record is DRAFTER else 0})
    screen.show({"status": "success"})
    screen.finish()
    drawings = capsys.readouterr().err.split("\r")

    assert [text.count("\n") for text in drawings] == [0, 1, 2, 2, 3]
    assert drawings[2].endswith("\x1b[2A")
    assert "drafter" in drawings[-1]
    assert drawings[-1].endswith("success\n")


def test_a_record_names_its_model_and_why() -> None:
    """An import passes some over."""
    assert wording({"status": "passed over", "model": "x", "why": "No."}) == "passed over x: No."
