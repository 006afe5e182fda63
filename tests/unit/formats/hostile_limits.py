"""Files just below every limit, made so that each byte costs as much time and memory as it can."""

import json
import struct
from collections.abc import Callable, Iterable

from gemmad.formats.gguf import LIMITS
from gemmad.formats.json_text import LARGE, SETTINGS, Budget
from tests.unit.formats.hostile_gguf import (
    ARRAY,
    BOOL,
    STRING,
    U8,
    U64,
    Field,
    Fields,
    header,
    info,
    key,
    number,
    text,
    u32,
    u64,
)

Made = tuple[str, bytes]  # name in the repository, content
WIDE = "\U0001f4a3".encode()  # one such character, and a text takes four bytes for each
HEADER_ROOM = LIMITS.header_bytes - (1 << 20)


def gguf(keys: Iterable[Fields], infos: Iterable[Fields] = (), tail: int = 0) -> Made:
    """A target with these keys as well."""
    first = [
        key("general.architecture", STRING, *text(b"gemma4")),
        number("gemma4.block_count", 4),
        number("gemma4.embedding_length", 64),
    ]
    fields = header([*first, *keys], list(infos), b"\0" * tail)
    return "model.gguf", b"".join(field.data for field in fields)


def words(name: str, count: int, item: bytes) -> Fields:
    """A list of strings of one length."""
    data = (struct.pack("<Q", len(item)) + item) * count
    return key(name, ARRAY, u32(STRING, "type"), u64(count), Field("data", data))


def packed(name: str, kind: int, count: int, size: int) -> Fields:
    """A list of numbers or flags."""
    return key(name, ARRAY, u32(kind, "type"), u64(count), Field("data", b"\1" * (count * size)))


def safetensors(header: bytes, data: bytes = b"") -> Made:
    """A file with this header."""
    return "model.safetensors", struct.pack("<Q", len(header)) + header + data


def many_tensors() -> Made:
    """As many as the JSON's budget has containers for."""
    count = LARGE.containers // 3 - 1
    places = ({"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(count))
    entries = {f"t{n}": place for n, place in enumerate(places)}
    return safetensors(json.dumps(entries).encode(), b"\0" * count)


def listed(item: bytes, budget: Budget, containers: int = 0) -> bytes:
    """A list of as many items as there is a budget for."""
    room = budget.nbytes // (len(item) + 1) - 20
    commas = item.count(b",") + 1
    count = min(
        room, budget.values // commas, budget.containers // containers if containers else room
    )
    return b'{"a":[' + b",".join([item] * (count - 9)) + b"]}"


def one_text(budget: Budget) -> bytes:
    """One string that is all of the file."""
    return b'{"a":"' + WIDE + b"x" * (budget.nbytes - 100) + b'"}'


def escapes(budget: Budget) -> bytes:
    """A string of nothing but escapes."""
    return b'{"a":"' + WIDE + rb"\\\"" * (budget.nbytes // 4 - 100) + b'"}'


def keys(budget: Budget) -> bytes:
    """One object of as many keys as there is a budget for."""
    return b"{" + b",".join(b'"%d":%d' % (n, n + 999) for n in range(budget.values)) + b"}"


def shards() -> Made:
    """An index that names a tensor in every line."""
    weights = {f"tensor{n}": "model.safetensors" for n in range(LARGE.nbytes // 40)}
    return "model.safetensors.index.json", json.dumps({"weight_map": weights}).encode()


LARGEST: dict[str, Callable[[], Made]] = {
    "small tokens": lambda: gguf([words("tokenizer.ggml.tokens", LIMITS.list_items, b"abcd")]),
    "wide tokens": lambda: gguf(
        [words("tokenizer.ggml.tokens", HEADER_ROOM // 1_032, WIDE + b"x" * 1_020)]
    ),
    "wide strings": lambda: gguf([words("x", HEADER_ROOM // 1_032, WIDE + b"x" * 1_020)]),
    "short lists": lambda: gguf([words(f"x{n}", 999, WIDE + b"x" * 40) for n in range(1_000)]),
    "short numbers": lambda: gguf([packed(f"x{n}", U64, 1_000, 8) for n in range(4_000)]),
    "texts": lambda: gguf(
        [key(f"x{n}", STRING, *text(WIDE + b"x" * ((1 << 20) - 4))) for n in range(4)]
    ),
    "keys": lambda: gguf(
        [key("k" * 245 + f"{n:06}", STRING, *text(b"x" * 1_000)) for n in range(4_000)]
    ),
    "numbers": lambda: gguf([packed("x", U8, LIMITS.list_numbers, 1)]),
    "wide numbers": lambda: gguf([packed("x", U64, LIMITS.list_numbers, 8)]),
    "flags": lambda: gguf([packed("x", BOOL, LIMITS.list_items, 1)]),
    "tensors": lambda: gguf(
        [],
        (info(f"{n:063}", (32, 1, 1, 1), 0, n * 128) for n in range(LIMITS.tensors)),
        LIMITS.tensors * 128 + 64,
    ),
    "many tensors in safetensors": many_tensors,
    "empty objects": lambda: safetensors(listed(b"{}", LARGE, 1)),
    "objects": lambda: safetensors(listed(b'{"a":1}', LARGE, 1)),
    "numbers in JSON": lambda: safetensors(listed(b"123456789", LARGE)),
    "strings in JSON": lambda: safetensors(listed(b'"abcdefghijklmnop"', LARGE)),
    "a text in JSON": lambda: safetensors(one_text(LARGE)),
    "escapes in JSON": lambda: safetensors(escapes(LARGE)),
    "keys in JSON": lambda: safetensors(keys(LARGE)),
    "keys in settings": lambda: ("config.json", keys(SETTINGS)),
    "objects in settings": lambda: ("config.json", listed(b'{"a":1}', SETTINGS, 1)),
    "a text in settings": lambda: ("config.json", one_text(SETTINGS)),
    "an index": shards,
    "a tokenizer": lambda: ("tokenizer.json", b'{"a":"' + b"x" * ((48 << 20) - 20) + b'"}'),
}
