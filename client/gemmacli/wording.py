"""Sizes, ages and durations as people read them; pure."""

from datetime import datetime, timedelta

_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
_FOREVER = timedelta(days=50 * 365)


def size(count: int) -> str:
    """Bytes in decimal units: `31 MB`, `2.2 GB`, `512 B`."""
    for unit, name in _SIZES:
        if count >= unit:
            value = count / unit
            return f"{value:.0f} {name}" if value >= 10 else f"{value:.1f} {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """A time span in the unit that fits: `850 µs`, `35 ms`, `1.24 s`, `2 min 5 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def age(moment: datetime, now: datetime) -> str:
    """How far `moment` lies from `now`: `3 minutes ago`, `4 minutes from now`, `Forever`."""
    if moment - now > _FOREVER:
        return "Forever"
    span = now - moment
    return f"{_span(abs(span))} {'ago' if span >= timedelta(0) else 'from now'}"


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 60:
        return plural(seconds, "second") if seconds else "Less than a second"
    if minutes < 60:
        return "About a minute" if minutes == 1 else plural(minutes, "minute")
    if hours < 48:
        return "About an hour" if hours == 1 else plural(hours, "hour")
    if days < 14:
        return plural(days, "day")
    if days < 60:
        return plural(days // 7, "week")
    return plural(days // 30, "month") if days < 730 else plural(days // 365, "year")


def plural(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def moment(text: str) -> datetime:
    """An RFC 3339 time as the daemon writes it, nanoseconds cut to microseconds.

    Raises:
        ValueError: the text is no such time.
    """
    head, dot, tail = text.replace("Z", "+00:00").partition(".")
    if not dot:
        return datetime.fromisoformat(head)
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return datetime.fromisoformat(f"{head}.{tail[:digits][:6]:0<6}{tail[digits:]}")


def percent(share: float) -> str:
    """A share as whole percent."""
    return f"{share * 100:.0f}%"
