"""Writes and reads what the depth controller learned, as JSON values.

```
{"version": 2,
 "regimes": {"greedy":  {"seconds": {"1": {"0": 0.0025, "4": 0.0051}}, width -> depth -> seconds
                         "acceptance": [[0.8, 120], [0.9, 96]]},       [rate, samples] a position
             "sampled": {...}, "constrained": {...}}}
```
Version 1, which is still read, knew one width: its "seconds" map depths to seconds.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

STATE_VERSION: Final = 2


class Learned(NamedTuple):
    """The figures of one regime."""

    seconds: dict[int, dict[int, float]]  # of a round, by width and depth
    rates: list[tuple[float, int]]  # (acceptance, samples) by position


def dump(learned: Mapping[str, Learned]) -> dict[str, object]:
    """`learned` in the format above; `parse` reads it back."""
    regimes = {
        name: {
            "seconds": {
                str(width): {str(depth): value for depth, value in costs.items()}
                for width, costs in figures.seconds.items()
            },
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
    version = state.get("version")
    if version not in (1, STATE_VERSION):
        raise ValueError(f"depth state: version {version!r}, not 1 or {STATE_VERSION}")
    regimes = _mapping(state.get("regimes"), "regimes")
    return {
        name: _learned(_mapping(entry, name), of_one_width=version == 1)
        for name, entry in regimes.items()
    }


def _learned(entry: Mapping[str, object], *, of_one_width: bool) -> Learned:
    seconds = _mapping(entry.get("seconds"), "seconds")
    widths = {"1": seconds} if of_one_width else seconds
    costs = {
        _whole(width, "width"): _costs(_mapping(by_depth, "seconds"))
        for width, by_depth in widths.items()
    }
    rates = [_rate(pair) for pair in _list(entry.get("acceptance"), "acceptance")]
    return Learned({width: by_depth for width, by_depth in costs.items() if by_depth}, rates)


def _costs(by_depth: Mapping[str, object]) -> dict[int, float]:
    return {
        _whole(key, "depth"): _number(value, "seconds", 1e-9, 3600.0)
        for key, value in by_depth.items()
    }


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


def _whole(key: str, name: str) -> int:
    if not key.isascii() or not key.isdigit() or len(key) > 6:
        raise ValueError(f"depth state: seconds holds {key!r}, which is not a {name}")
    return int(key)


def _rate(pair: object) -> tuple[float, int]:
    values = _list(pair, "acceptance entry")
    if len(values) != 2:
        raise ValueError(f"depth state: acceptance holds {pair!r}, not [rate, samples]")
    rate = _number(values[0], "rate", 0.0, 1.0)
    return rate, int(_number(values[1], "samples", 1, 1e15))
