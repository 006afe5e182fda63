"""JSON of untrusted files: bounded in size, depth and number of values, no key twice, no NaN."""

import json
from typing import Any, NoReturn

import msgspec

from gemmad.formats.limits import BadFile

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
# A container of Python takes 30 times its text, so a text within the size could still take 400 MB.
MAX_CONTAINERS = 400_000
MAX_VALUES = 1_200_000


def load_json(data: bytes, most: int = MAX_BYTES) -> object:
    """The value that the JSON text `data` is.

    Raises:
        BadFile: it is no JSON, or beyond a bound.
    """
    if len(data) > most:
        raise BadFile(f"it is {len(data)} bytes of JSON; at most {most} are read")
    if data.count(b"{") + data.count(b"[") > MAX_CONTAINERS or data.count(b",") > MAX_VALUES:
        raise BadFile("its JSON has more values than any model needs")
    try:
        # msgspec is the strict one (text, numbers); only the other one sees a key twice
        value: object = msgspec.json.decode(data)
        json.loads(data, object_pairs_hook=_check_keys, parse_constant=_refuse_constant)
    except BadFile:
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadFile(f"its JSON is damaged ({_reason(error)})") from None
    _check_depth(value)
    return value


def load_object(data: bytes, most: int = MAX_BYTES) -> dict[str, Any]:
    """The object that the JSON text `data` is.

    Raises:
        BadFile: it is no JSON object, or beyond a bound.
    """
    value = load_json(data, most)
    if not isinstance(value, dict):
        raise BadFile("its JSON is no object")
    return value


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    """Nothing is kept of the object; its keys differ."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise BadFile("its JSON has a key twice")


def _refuse_constant(name: str) -> NoReturn:
    raise BadFile(f"its JSON holds {name}")


def _check_depth(value: object) -> None:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadFile(f"its JSON is nested deeper than {MAX_DEPTH}")
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)[:120]
