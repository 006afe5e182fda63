"""Sizes, ages and durations read as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from gemmacli.wording import age, duration, moment, size

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KB"),
        (3_800_000, "3.8 MB"),
        (31_200_000, "31 MB"),
        (2_200_000_000, "2.2 GB"),
        (5_000_000_000_000, "5.0 TB"),
    ],
)
def test_size_has_decimal_units(count: int, text: str) -> None:
    """Small numbers keep a digit after the point."""
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00085, "850 µs"),
        (0.035, "35 ms"),
        (0.9999, "1.00 s"),
        (1.24, "1.24 s"),
        (125, "2 min 5 s"),
    ],
)
def test_duration_uses_the_unit_that_fits(seconds: float, text: str) -> None:
    """No reader has to count zeros."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=0.2), "Less than a second ago"),
        (timedelta(seconds=1), "1 second ago"),
        (timedelta(seconds=90), "About a minute ago"),
        (timedelta(minutes=3), "3 minutes ago"),
        (timedelta(hours=1, minutes=5), "About an hour ago"),
        (timedelta(hours=47), "47 hours ago"),
        (timedelta(days=3), "3 days ago"),
        (timedelta(days=21), "3 weeks ago"),
        (timedelta(days=90), "3 months ago"),
        (timedelta(days=800), "2 years ago"),
        (-timedelta(minutes=4), "4 minutes from now"),
        (-timedelta(days=36500), "Forever"),
    ],
)
def test_age_is_told_in_the_largest_unit(ago: timedelta, text: str) -> None:
    """The past is ago, the future from now, and keep-alive -1 is for ever."""
    assert age(NOW - ago, NOW) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T12:00:00Z",
        "2026-11-23T12:00:00.000000000Z",
        "2026-11-23T14:00:00.0+02:00",
        "2026-11-23T12:00:00.000000+00:00",
    ],
)
def test_moment_reads_every_form_of_rfc3339(text: str) -> None:
    """Nanoseconds, short fractions and offsets are the same moment."""
    assert moment(text) == NOW
