"""JSON of liars, and safetensors of it: keys, numbers, types and nesting are changed."""

import json
import random
import struct
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**40, 1e308, -0.5, 1e-320),
    *(
        "",
        "\0",
        "a" * 5_000,
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "owner/repo",
        "💣",
        "\ud800",
    ),
    *("gemma4", "gemma3", "llama", "BF16", "model.safetensors", [], {}, [[]], [{}], {"": {}}),
    *([0, 2**63], [-1, 5], [1.5, 2], ["0", "4"], [0] * 300, list(range(9)), {"a": {"b": {"c": 1}}}),
)
KEYS = (
    *("", "a", "__proto__", "__metadata__", "auto_map", "trust_remote_code", "x" * 3_000),
    *("_attn_implementation_internal", "_attn_implementation", "quantization_config"),
    *("text_config", "model_type", "weight_map", "architectures", "💣", "\0", "layer_types"),
)
RAW = (
    *(
        b"NaN",
        b"Infinity",
        b"-",
        b"1e999",
        b"-1e999",
        b"[" * 200,
        b"{" * 90,
        b"]",
        b"}",
        b",",
        b'"',
    ),
    *(
        b"\xff",
        b"\0",
        b"1" * 5_000,
        b"0x1",
        b"'",
        b"/*",
        b"\\u",
        b"\\ud800",
        b'"a":1,"a":1',
        b"[[[[]]]]",
    ),
)


def mutated_json(value: Any, choose: random.Random) -> bytes:
    """The document with one to four changes of its structure, at times of its text."""
    changed = json.loads(json.dumps(value))
    for _ in range(choose.choice((1, 1, 2, 4))):
        changed = _changed(changed, choose)
    data = json.dumps(changed).encode()
    if choose.random() < 0.3:
        data = _broken(data, choose)
    return data


def mutated_safetensors(entries: dict[str, Any], data: bytes, choose: random.Random) -> bytes:
    """A file of such a header, its length a lie at times."""
    made = mutated_json(entries, choose)
    length = len(made)
    if choose.random() < 0.15:
        length = choose.choice((0, 1, length - 1, length + 1, 2**31, 2**62, 2**63, 2**64 - 1))
    whole = struct.pack("<Q", length % 2**64) + made + data
    return whole[: choose.randrange(len(whole))] if choose.random() < 0.05 else whole


def _changed(value: Any, choose: random.Random) -> Any:
    """One change somewhere below: deeper each time, until a leaf or a whim."""
    if isinstance(value, dict) and value and choose.random() < 0.85:
        name = choose.choice(list(value))
        how = choose.random()
        if how < 0.08:
            return {key: inner for key, inner in value.items() if key != name}
        if how < 0.16:
            return value | {choose.choice(KEYS): choose.choice(ODD)}
        if how < 0.2:
            return value | {choose.choice(KEYS): value[name]}
        return value | {name: _changed(value[name], choose)}
    if isinstance(value, list) and value and choose.random() < 0.8:
        at = choose.randrange(len(value))
        return [*value[:at], _changed(value[at], choose), *value[at + 1 :]]
    if type(value) is int and choose.random() < 0.5:
        return value + choose.choice((-1, 1, 8, 2**32, 2**63, -(2**40)))
    return _deep(choose) if choose.random() < 0.05 else choose.choice(ODD)


def _deep(choose: random.Random) -> Any:
    value: Any = 1
    for _ in range(choose.choice((5, 63, 65, 400))):
        value = [value] if choose.random() < 0.5 else {"a": value}
    return value


def _broken(data: bytes, choose: random.Random) -> bytes:
    at = choose.randrange(len(data))
    return data[:at] + choose.choice(RAW) + data[at + choose.choice((0, 1, 4)) :]
