"""GGUF files by their fields: a mutation knows whether it changes a count, a type, an offset."""

import random
import struct
from typing import NamedTuple

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10
HUGE = (
    *(0, 1, 2, 3, 31, 255, 256, 4_096, 65_535, 65_536, 1 << 20, 1 << 24),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 60, 1 << 61, 1 << 62),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 1),
)
TEXTS = (
    *(b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"a" * 63, b"a" * 64, b"a" * 255, b"a" * 257),
    *(
        b"../../etc/passwd",
        b"general.alignment",
        b"\xf0\x9f\x92\xa3" * 9,
        b"\x1b[2J\r\n",
        b"x" * 9_000,
    ),
    *(b"gemma4.block_count", b"token_embd.weight", b"split.count", b"clip", b"llama", b"gemma3"),
)


class Field(NamedTuple):
    """Bytes of a file, and what they are."""

    kind: str  # u64 u32 type ggml text value data
    data: bytes


Fields = list[Field]


def u64(number: int) -> Field:
    """A count, length, dimension or offset."""
    return Field("u64", struct.pack("<Q", number))


def u32(number: int, kind: str = "u32") -> Field:
    """A number of 32 bits: a type, a version."""
    return Field(kind, struct.pack("<I", number))


def text(data: bytes) -> Fields:
    """A string."""
    return [u64(len(data)), Field("text", data)]


def key(name: str, kind: int, *value: Field) -> Fields:
    """A key with its value."""
    return [*text(name.encode()), u32(kind, "type"), *value]


def number(name: str, value: int) -> Fields:
    """A key that is a number."""
    return key(name, U32, Field("value", struct.pack("<I", value)))


def words(name: str, items: list[bytes]) -> Fields:
    """A key that is a list of strings."""
    each = [field for item in items for field in text(item)]
    return key(name, ARRAY, u32(STRING, "type"), u64(len(items)), *each)


def numbers(name: str, items: list[int], kind: int = U32) -> Fields:
    """A key that is a list of numbers (U32, F32) or flags (BOOL)."""
    size = {U32: "<I", F32: "<f", BOOL: "<?"}[kind]
    data = b"".join(struct.pack(size, item) for item in items)
    return key(name, ARRAY, u32(kind, "type"), u64(len(items)), Field("data", data))


def info(name: str, dims: tuple[int, ...], kind: int, offset: int) -> Fields:
    """A tensor's info; `dims` as the file has them, fastest first."""
    lengths = [u64(length) for length in dims]
    return [*text(name.encode()), u32(len(dims)), *lengths, u32(kind, "ggml"), u64(offset)]


def header(keys: list[Fields], infos: list[Fields], tail: bytes = b"\0" * 4_096) -> Fields:
    """A whole file."""
    flat = [field for part in (*keys, *infos) for field in part]
    start = [Field("value", b"GGUF"), u32(3), u64(len(infos)), u64(len(keys))]
    return [*start, *flat, Field("data", tail)]


def sound(tokens: int = 24, drafter: bool = False) -> Fields:
    """A small target or drafter, as a writer of good faith makes it."""
    arch = "gemma4-assistant" if drafter else "gemma4"
    keys = [
        key("general.architecture", STRING, *text(arch.encode())),
        number("general.alignment", 32),
        number(f"{arch}.block_count", 4),
        number(f"{arch}.embedding_length", 64),
        number(f"{arch}.context_length", 4_096),
        number(f"{arch}.attention.sliding_window", 512),
        number(f"{arch}.attention.head_count", 4),
        number(f"{arch}.attention.key_length", 64),
        number(f"{arch}.attention.key_length_swa", 32),
        numbers(f"{arch}.attention.head_count_kv", [1, 1, 1, 2]),
        numbers(f"{arch}.feed_forward_length", [128, 128, 256, 256]),
        numbers(f"{arch}.attention.sliding_window_pattern", [1, 1, 1, 0], BOOL),
        key("general.sampling.temp", F32, Field("value", struct.pack("<f", 1.0))),
        key("general.size", U64, Field("value", struct.pack("<Q", 7))),
        key("tokenizer.ggml.add_bos_token", BOOL, Field("value", b"\1")),
        words("tokenizer.ggml.tokens", [b"token%d" % index for index in range(tokens)]),
        words("tokenizer.ggml.merges", [b"to ken", b"a b"]),
        numbers("tokenizer.ggml.scores", [0] * tokens, F32),
        key("tokenizer.chat_template", STRING, *text(b"{{ messages }}<|tool>")),
    ]
    infos = [
        info("token_embd.weight", (64, 8), 1, 0),
        info("blk.0.attn_q.weight", (32, 4), 2, 1_024),
        info("nextn.post_projection.weight", (64, 4), 0, 1_120),
        info("output_norm.weight", (64,), 0, 2_144),
    ]
    return header(keys, infos)


def mutated(fields: Fields, choose: random.Random) -> bytes:
    """One to four changes of fields, at times of bytes, at times cut off."""
    changed = list(fields)
    if choose.random() < 0.3:  # what is read is believed, and may still be absurd
        at = choose.choice(
            [n for n, field in enumerate(changed) if field.kind in ("value", "data")]
        )
        _replace(changed, at, choose)
        return b"".join([field.data for field in changed])
    for _ in range(choose.choice((1, 1, 1, 2, 4))):
        at = choose.randrange(len(changed))
        choose.choice((_replace, _replace, _replace, _replace, _copy, _drop, _nest))(
            changed, at, choose
        )
    data = b"".join([field.data for field in changed])
    if choose.random() < 0.15:
        data = _random_bytes(bytearray(data), choose)
    if choose.random() < 0.1:
        data = data[: choose.randrange(len(data))]
    return data


def _replace(fields: Fields, at: int, choose: random.Random) -> None:
    kind, data = fields[at]
    if kind == "u64":
        near = int.from_bytes(data, "little") + choose.choice((-1, 1, 8))
        fields[at] = u64(choose.choice((*HUGE, near, near * 2)) % (1 << 64))
    elif kind in ("u32", "type", "ggml"):
        few = {"type": 14, "ggml": 45, "u32": 6}[kind]
        odd = choose.choice((1 << 31, (1 << 32) - 1, 1 << 16))
        fields[at] = u32(choose.choice((choose.randrange(few), choose.randrange(few), odd)), kind)
    elif kind == "text":
        other = choose.choice(TEXTS)
        fields[at] = Field("text", other)
        if choose.random() < 0.7:  # a lie that its length does not give away
            fields[at - 1] = u64(len(other))
    else:
        size = len(data)
        fill = choose.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\x01"))
        fields[at] = Field(kind, choose.choice((fill * size, choose.randbytes(size), data[:-1])))


def _copy(fields: Fields, at: int, choose: random.Random) -> None:
    """Some fields once more, elsewhere: a key or a tensor that is there twice."""
    some = fields[at : at + choose.choice((1, 3, 4, 8))]
    place = choose.randrange(len(fields))
    fields[place:place] = some * choose.choice((1, 1, 50))


def _drop(fields: Fields, at: int, choose: random.Random) -> None:
    del fields[at : at + choose.choice((1, 2, 4))]
    fields.append(Field("data", b"\0" * 64))


def _nest(fields: Fields, at: int, choose: random.Random) -> None:
    """An array of arrays of arrays, or one of more than there is."""
    depth = choose.choice((1, 2, 500))
    each = [u32(ARRAY, "type"), u64(choose.choice((1, 1, *HUGE)))]
    fields[at:at] = [u32(ARRAY, "type"), *(each * depth), u32(choose.randrange(14), "type"), u64(1)]


def _random_bytes(data: bytearray, choose: random.Random) -> bytes:
    for _ in range(choose.randint(1, 8)):
        data[choose.randrange(len(data))] = choose.randrange(256)
    return bytes(data)
