"""Rows say what the daemon said, also where it left something out."""

from datetime import UTC, datetime

from gemmacli.tables import aligned, broken_notes, card, stored_row

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def test_columns_align() -> None:
    """Four spaces apart, none at the end."""
    assert aligned([("a", "bb"), ("ccc", "d")]) == ["a      bb", "ccc    d"]


def test_a_model_without_a_drafter_has_a_dash() -> None:
    """So has one whose record is sparse."""
    assert stored_row({"name": "x:1", "drafter": None}, NOW) == ("x:1", "-", "0 B", "-", "-")


def test_a_broken_name_says_why() -> None:
    """It has no size and no age."""
    model = {
        "name": "x:1",
        "broken": "A file is missing. Pull it again.",
        "modified_at": "1970-01-01T00:00:00Z",
    }

    assert stored_row(model, NOW) == ("x:1", "-", "broken", "-", "-")
    assert broken_notes([model, {"name": "y:1"}]) == [
        "x:1 is broken: A file is missing. Pull it again."
    ]


def test_a_card_without_a_drafter_says_so() -> None:
    """Empty sections are left out."""
    assert card({}, verbose=True) == [
        "  Drafter",
        "    none    answers come from the target alone",
    ]
