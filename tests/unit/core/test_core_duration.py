"""Durations as clients write them."""

import math

import pytest

from gemmad.duration import parse_duration


@pytest.mark.parametrize(("text", "seconds"), [
    (0, 0), (5, 5), (0.5, 0.5), (-1, math.inf), ("5m", 300), ("1h30m", 5400), ("300ms", 0.3),
    ("0", 0), ("10", 10), ("-1", math.inf), ("-5m", math.inf), ("1.5h", 5400), ("0s", 0),
    (1e300, math.inf), (math.inf, math.inf), ("+5s", 5), (" 5s ", 5),
])  # fmt: skip
def test_durations_are_read_in_seconds(text, seconds):
    """Numbers are seconds, texts are Go's durations, negative is for ever."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "m", "5 m", "5x", "1e9s", "--1", "nan", math.nan, "5m!", "9" * 99]
)
def test_anything_else_is_no_duration(text):
    """With a ValueError and nothing else."""
    with pytest.raises(ValueError, match=r".+"):
        parse_duration(text)
