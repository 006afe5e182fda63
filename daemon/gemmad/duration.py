"""Durations as people and Ollama's clients write them: `5m`, `1h30m`, `-1`, `300`; pure."""

import math
import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"([+-]?)((?:{_PIECE.pattern})+|\d+(?:\.\d+)?)")
MAX_S = 3.15e9  # a hundred years: whoever asks for more means for ever

ACCEPTED = "seconds (300), a duration ('5m', '1h30m'), or -1 for ever"


def parse_duration(value: str | int | float) -> float:
    """`value` in seconds; infinity when it is negative (for ever).

    Raises:
        ValueError: it is not ACCEPTED.
    """
    seconds = _text(value.strip()) if isinstance(value, str) else float(value)
    if math.isnan(seconds):
        raise ValueError("not a number")
    return math.inf if seconds < 0 or seconds > MAX_S else seconds


def _text(value: str) -> float:
    if len(value) > 64 or not (match := _WHOLE.fullmatch(value)):
        raise ValueError(f"{value[:64]!r} is not a duration")
    sign = -1.0 if match[1] == "-" else 1.0
    pieces = _PIECE.findall(match[2])
    if not pieces:
        return sign * float(match[2])
    return sign * sum(float(number) * _UNITS[unit] for number, unit in pieces)
