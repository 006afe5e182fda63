"""Writes and reads what the depth controller learned, as JSON values.

```
{"version": 1,
 "regimes": {"greedy":  {"seconds": {"0": 0.0025, "4": 0.0051},        depth -> seconds a round
                         "acceptance": [[0.8, 120], [0.9, 96]]},       [rate, samples] a position
             "sampled": {...}}}
```
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

STATE_VERSION: Final = 1


class Learned(NamedTuple):
    """The figures of one regime."""

    seconds: dict[int, float]  # of a round, by depth
    rates: list[tuple[float, int]]  # (acceptance, samples) by position


def dump(learned: Mapping[str, Learned]) -> dict[str, object]:
    """`learned` in the format above; `parse` reads it back."""
    regimes = {
        name: {
            "seconds": {str(depth): value for depth, value in figures.seconds.items()},
            "acceptance": [[rate, samples] for rate, samples in figures.rates],
        }
        for name, figures in learned.items()
    }
    return {"version": STATE_VERSION, "regimes": regimes}


def parse(state: Mapping[str, object]) -> dict[str, Learned]:
    """The figures of every regime in `state`.

    Raises:
        ValueError: not the format above; says where.
    """
    if state.get("version") != STATE_VERSION:
        raise ValueError(f"depth state: version {state.get('version')!r}, not {STATE_VERSION}")
    regimes = _mapping(state.get("regimes"), "regimes")
    return {name: _learned(_mapping(entry, name)) for name, entry in regimes.items()}


def _learned(entry: Mapping[str, object]) -> Learned:
    seconds = {
        _depth(key): _number(value, "seconds", 1e-9, 3600.0)
        for key, value in _mapping(entry.get("seconds"), "seconds").items()
    }
    rates = [_rate(pair) for pair in _list(entry.get("acceptance"), "acceptance")]
    return Learned(seconds, rates)


def _mapping(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"depth state: {name} is not an object")
    return value


def _list(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"depth state: {name} is not a list")
    return value


def _number(value: object, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"depth state: {name} holds {value!r}, not a number from {low} to {high}")
    return float(value)


def _depth(key: str) -> int:
    if not key.isascii() or not key.isdigit():
        raise ValueError(f"depth state: seconds holds {key!r}, which is not a depth")
    return int(key)


def _rate(pair: object) -> tuple[float, int]:
    values = _list(pair, "acceptance entry")
    if len(values) != 2:
        raise ValueError(f"depth state: acceptance holds {pair!r}, not [rate, samples]")
    rate = _number(values[0], "rate", 0.0, 1.0)
    return rate, int(_number(values[1], "samples", 1, 1e15))
