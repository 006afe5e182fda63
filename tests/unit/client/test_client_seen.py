"""Rows, bars and lines of `gemma ps`, from what the daemon says of a scene."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmacli import seen
from gemmacli.tables import aligned
from gemmad.dialects.ollama import running
from tests.fakes.seen_scenes import SCENE

NOW = datetime(2026, 11, 29, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
REPLY = json.loads(json.dumps(running.ps(SCENE, {}, NOW_NS)))


def table(columns: int) -> list[str]:
    """The scene's table on a terminal of so many columns."""
    rows = [seen.running_row(model, NOW) for model in REPLY["models"]]
    return aligned(seen.fitted([seen.RUNNING_HEAD, *rows], columns))


def cells(index: int) -> tuple[str, ...]:
    """Of one model of the scene."""
    return seen.running_row(REPLY["models"][index], NOW)


def test_row_shows_both_halves_and_what_drafting_does() -> None:
    """Bytes and device of each, depth, shares by position, speed, and until when."""
    assert cells(1) == (
        "gemma4:e4b", "a1a1a1a1a1a1", "11 GB", "8.6 GB cuda:0", "168 MB cuda:0", "4",
        "84% 60% 39% 27%", "182", "8192", "5 minutes from now",
    )  # fmt: skip


def test_drafter_that_is_away_is_told_by_its_state() -> None:
    """Detached and set aside are not the same, and no drafter is neither."""
    assert [cells(index)[4] for index in (0, 2)] == ["detached", "set aside"]
    assert seen.running_row({"name": "x", "drafter": {"state": "absent"}}, NOW)[4] == "-"


def test_load_shows_how_far_it_is() -> None:
    """Instead of an end that nobody knows."""
    assert table(200)[3].endswith("Loading target 25%")


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 160])
def test_table_fits_the_terminal(columns: int) -> None:
    """Down to 80 columns nothing wraps; name, halves and time are always there."""
    lines = table(columns)

    assert max(map(len, lines)) <= max(columns, 80)
    assert {"NAME", "TARGET", "DRAFTER", "UNTIL"} <= set(lines[0].split())


def test_what_is_leaving_says_so() -> None:
    """Whether it is told to go or its time is over."""
    gone = {"name": "x", "expires_at": "2026-11-28T00:00:00Z", "state": "ready"}
    leaving = {**gone, "expires_at": "2126-11-28T00:00:00Z", "state": "draining"}

    assert {seen.running_row(model, NOW)[-1] for model in (gone, leaving)} == {"Stopping..."}


def test_notes_say_why() -> None:
    """Of the machine, of drafters, contexts and crashes, with the last lines of a log."""
    lines = seen.notes(REPLY)

    assert lines[0] == "NVIDIA's driver answers slowly"
    assert "gemma4:e2b: no drafter: to make room for gemma4:e4b" in lines
    assert "gemma4:e2b: context: memory has room for 4096 tokens of 8192" in lines
    assert "nano:latest: crashed 3 times: SIGSEGV" in lines
    assert lines[-3] == "    line 8"
    assert lines[-2:] == ["gemma4:12b: not loaded for now: crashed 3 times: SIGILL", "    last"]


def test_budgets_have_bars_of_one_width() -> None:
    """Kinds in their order, others' use, and what is free."""
    lines = seen.budgets(REPLY, 100)

    assert [len(line.split("]")[0]) for line in lines[:2]] == [len(lines[0].split("]")[0])] * 2
    assert lines[0].split("[")[1].startswith("####")
    assert lines[0].endswith("18 GB ours, 6.4 GB of 26 GB free")
    assert lines[2:] == ["cpu: swap is in use", seen.LEGEND]
    assert max(map(len, lines)) <= 100


def test_queue_is_one_line_and_none_when_nobody_waits() -> None:
    """First served comes first."""
    assert seen.queue(REPLY) == [
        "Waiting: gemma4:31b (interactive, 3.25 s), nano:latest (batch, 1.00 s)"
    ]
    assert seen.queue({"queue": []}) == []


BYTES = st.integers(0, 1 << 40)


@given(
    st.integers(1, 1 << 41),
    BYTES,
    st.dictionaries(st.sampled_from(["target", "drafter", "kv", "prefixes", "spare"]), BYTES),
    st.integers(5, 60),
)
def test_bar_is_as_wide_as_it_is_told(
    total: int, free: int, ours: dict[str, int], width: int
) -> None:
    """Also where figures contradict one another: they were read at different moments."""
    drawn = seen.bar({"total": total, "free": free, "ours": ours}, width)

    assert len(drawn) == width
    assert ("#" in drawn) == bool(ours.get("target"))
