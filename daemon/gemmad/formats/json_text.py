"""JSON of untrusted files: bounded in size, depth and number of values, no key twice, no NaN."""

import re
from typing import Any, NamedTuple

import msgspec

from gemmad.formats.limits import BadFile

MAX_BYTES = 8 << 20
MAX_DEPTH = 64
_STRING = re.compile(rb'"[^"]*"(\s*:)?')  # in texts without escaped quotes; a colon ends a key


class Budget(NamedTuple):
    """How much of everything: a container takes 30 times its text in memory, a text four times."""

    nbytes: int
    containers: int
    values: int


# 30 layers of 128 experts, each with packed matrices and scales, are 104,000 containers.
LARGE = Budget(MAX_BYTES, 120_000, 250_000)
SETTINGS = Budget(4 << 20, 25_000, 100_000)  # a tokenizer's 6,400 added tokens are the most


def load_json(data: bytes, budget: Budget = SETTINGS) -> object:
    """The value that the JSON text `data` is.

    Raises:
        BadFile: it is no JSON, or beyond a bound.
    """
    if len(data) > budget.nbytes:
        raise BadFile(f"it is {len(data)} bytes of JSON; at most {budget.nbytes} are read")
    containers, values = data.count(b"{") + data.count(b"["), data.count(b",")
    if containers > budget.containers or values > budget.values:
        raise BadFile("its JSON has more values than any model needs")
    keys = _count_keys(data)
    try:
        value: object = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadFile(f"its JSON is damaged ({_reason(error)})") from None
    if _check_depth(value) != keys:  # a parser keeps the last of two
        raise BadFile("its JSON has a key twice")
    return value


def load_object(data: bytes, budget: Budget = SETTINGS) -> dict[str, Any]:
    """The object that the JSON text `data` is.

    Raises:
        BadFile: it is no JSON object, or beyond a bound.
    """
    value = load_json(data, budget)
    if not isinstance(value, dict):
        raise BadFile("its JSON is no object")
    return value


def _count_keys(data: bytes) -> int:
    """How many keys the objects of a JSON text have, without a second parser's memory."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return sum(1 for match in _STRING.finditer(data) if match.end(1) > 0)


def _check_depth(value: object) -> int:
    """How many keys the objects in `value` have.

    Raises:
        BadFile: it is nested too deeply.
    """
    level, depth, keys = [value], 0, 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadFile(f"its JSON is nested deeper than {MAX_DEPTH}")
        keys += sum(len(item) for item in level if isinstance(item, dict))
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
    return keys


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)[:120]
