"""One hostile file for each published hole in a reader of model files, and what is said of it.

The numbers are those of the threat list; each file has the flaw that the CVE names, and no other.
"""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.unit.formats.fuzz_worker import NANO, entries
from tests.unit.formats.hostile_gguf import (
    ARRAY,
    STRING,
    U8,
    U64,
    Field,
    Fields,
    header,
    info,
    key,
    number,
    sound,
    text,
    u32,
    u64,
    words,
)

GGUF, WEIGHTS, INDEX = "model.gguf", "model.safetensors", "model.safetensors.index.json"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"


class Threat(NamedTuple):
    """A file in place of a sound one, and what the refusal says."""

    id: str
    name: str  # in the repository
    data: bytes
    told: str  # a pattern


def joined(fields: Fields) -> bytes:
    """The fields as a file."""
    return b"".join(field.data for field in fields)


def keyed(*keys: Fields) -> bytes:
    """A target's file with these keys as well as those that it needs."""
    own = (key("general.architecture", STRING, *text(b"gemma4")),)
    needed = (number("gemma4.block_count", 2), number("gemma4.embedding_length", 64))
    found = {bytes(part[1].data): part for part in (*own, *needed, *keys)}
    return joined(header(list(found.values()), [info("token_embd.weight", (64, 8), 1, 0)]))


def tensors(*infos: Fields) -> bytes:
    """A target's file with these tensors."""
    keys = [key("general.architecture", STRING, *text(b"gemma4"))]
    return joined(header(keys, list(infos)))


def bare(tensor_count: int, key_count: int, *fields: Field, version: int = 3) -> bytes:
    """A header of these counts, whatever follows."""
    start = [Field("value", b"GGUF"), u32(version), u64(tensor_count), u64(key_count)]
    return joined([*start, *fields])


def nested(depth: int) -> Fields:
    """A key that is an array of arrays, `depth` deep."""
    each = [field for _ in range(depth) for field in (u32(ARRAY), u64(1))]
    return key("a", ARRAY, *each, u32(U8), u64(1), Field("value", b"\0"))


def wide_token(nbytes: int) -> Fields:
    """A vocabulary with one token of this length."""
    return words("tokenizer.ggml.tokens", [b"a", b"x" * nbytes])


def gguf_threats() -> Iterator[Threat]:
    """T15 and T18: what crashed readers of GGUF written in C, C++ and Go."""
    long, at = 1 << 62, "blk.0.a"
    yield Threat("T15 CVE-2024-39720", GGUF, b"GGUF", "ends before its version")
    yield Threat("T15 CVE-2024-39720 short", GGUF, b"GG", "does not begin as a GGUF")
    yield Threat("T15 CVE-2024-12055", GGUF, bare(0, 1, u64(900), *[u64(0)] * 3), "metadata key")
    yield Threat("T15 CVE-2025-0312", GGUF, bare(0, 0), "architecture 'None'")
    yield Threat("T15 CVE-2025-0315", GGUF, keyed(key("a", ARRAY, u32(U8), u64(long))), "list of")
    yield Threat("T15 CVE-2025-0317", GGUF, keyed(number("general.alignment", 0)), "alignment")
    yield Threat("T15 alignment 48", GGUF, keyed(number("general.alignment", 48)), "alignment")
    yield Threat("T15 CVE-2024-8063", GGUF, keyed(number("gemma4.block_count", 0)), "block_count")
    yield Threat("T15 CVE-2025-66959", GGUF, keyed(key("a", STRING, u64(1 << 40))), "bytes long")
    yield Threat("T15 CVE-2025-66960", GGUF, bare(0, 1, u64(0), version=1), "GGUF version 1")
    yield Threat("T15 key of 300", GGUF, keyed(number("k" * 300, 1)), "at most 256")
    yield Threat("T15 key twice", GGUF, bare(0, 2, *number("a", 1) * 2), "there twice")
    yield Threat("T15 no UTF-8", GGUF, keyed(key("a", STRING, *text(b"\xed\xa0\x80"))), "not UTF-8")
    yield Threat("T15 type 99", GGUF, keyed(key("a", 99, u64(0))), "unknown type 99")
    yield Threat("T15 four keys too many", GGUF, bare(0, 4_100, *[u64(0)] * 9_000), "4100 metadata")
    yield Threat("T15 big-endian", GGUF, b"GGUF\0\0\0\3" + b"\0" * 16, "big-endian")
    yield Threat("T18 CVE-2024-21802", GGUF, tensors(info(at, (32,), 4, 0)), "unknown type 4")
    yield Threat("T18 CVE-2024-21825", GGUF, keyed(words("a", []) + [u64(long)] * 9), "")
    yield Threat("T18 CVE-2024-21836", GGUF, bare((1 << 60) + 1, 0), "announces")
    yield Threat("T18 CVE-2024-23496", GGUF, keyed(key("a", STRING, u64((1 << 64) - 1))), "at most")
    yield Threat("T18 CVE-2024-23605", GGUF, bare(0, 1 << 61), "announces")
    yield Threat("T18 CVE-2024-32878", GGUF, keyed()[:40], "ends before")
    yield Threat("T18 CVE-2024-41130", GGUF, bare(1, 0, *info(at, (8,), 0, 0)), "ends at byte")
    yield Threat("T18 CVE-2025-49847", GGUF, keyed(wide_token(2_000)), "at most 1024")
    yield Threat("T18 CVE-2025-52566", GGUF, keyed(key("a", ARRAY, u32(STRING), u64(1 << 32))), "")
    half = (1 << 31, 1 << 31, 2)
    yield Threat("T18 CVE-2025-53630", GGUF, tensors(info(at, half, 0, 0)), "ends at byte")
    wrap = ((1 << 64) - 32, 1, 1)
    yield Threat("T18 CVE-2026-27940", GGUF, tensors(info(at, wrap, 24, 0)), "ends at byte")
    yield Threat("T18 five dimensions", GGUF, tensors(info(at, (1,) * 5, 0, 0)), "5 dimensions")
    yield Threat("T18 no length", GGUF, tensors(info(at, (32, 0), 0, 0)), "rows of 32")
    yield Threat("T18 part of a block", GGUF, tensors(info(at, (33,), 2, 0)), "no number of Q4_0")


def leak_threats() -> Iterator[Threat]:
    """T16 and T17: tensors that reach into what is not theirs, and models of another kind."""
    name, other = "token_embd.weight", "output.weight"
    beyond, far = info(name, (64, 80), 0, 0), info(name, (64,), 0, (1 << 63) - 32)
    yield Threat("T16 CVE-2026-7482", GGUF, tensors(beyond), "ends at byte")
    yield Threat("T16 offset beyond", GGUF, tensors(far), "ends at byte")
    yield Threat("T16 misaligned", GGUF, tensors(info(name, (64,), 0, 4)), "not aligned")
    both = info(name, (64,), 0, 0), info(other, (64,), 0, 128)
    yield Threat("T16 overlap", GGUF, tensors(*both), "overlaps another")
    yield Threat("T16 name twice", GGUF, tensors(both[0], info(name, (4,), 0, 512)), "one name")
    yield Threat("T16 name of 64", GGUF, tensors(info("n" * 64, (4,), 0, 0)), "at most 63")
    mllama = key("general.architecture", STRING, *text(b"mllama"))
    yield Threat("T17 mllama", GGUF, keyed(mllama), "architecture 'mllama' is not supported")
    gemma3 = key("general.architecture", STRING, *text(b"gemma3"))
    yield Threat("T17 gemma3", GGUF, keyed(gemma3), "Gemma 3")
    for wrong, value in (("block_count", 70_000), ("attention.head_count", 4_000_000_000)):
        yield Threat(f"T17 {wrong}", GGUF, keyed(number(f"gemma4.{wrong}", value)), wrong)
    text_size = key("gemma4.embedding_length", STRING, *text(b"64"))
    yield Threat("T17 size as text", GGUF, keyed(text_size), "embedding_length is missing")
    parts = number("split.count", 3)
    yield Threat("T17 part of three", GGUF, keyed(parts), "part 1 of 3, among 1 files")


def bomb_threats() -> Iterator[Threat]:
    """T19: what makes the reader of the `gguf` package loop, recurse and overflow."""
    endless = key("a", ARRAY, u32(U8), u64(1 << 62))
    early = info("t", (1_000_000,), 0, 0)
    wrapping = info("t", (1 << 40,) * 4, 0, 0)
    yield Threat("T19 arraybomb", GGUF, bare(0, 1, *endless), "list of")
    yield Threat("T19 cnt", GGUF, bare(1 << 63, 1 << 63), "announces")
    yield Threat("T19 eof", GGUF, bare(1, 0, *early) + b"\0" * 71, "ends at byte 4000064")
    yield Threat("T19 nest", GGUF, bare(0, 1, *nested(3_000)), "array of arrays")
    yield Threat("T19 ovf", GGUF, bare(1, 0, *wrapping) + b"\0" * 79, "ends at byte")


def placed(**changes: object) -> bytes:
    """A header of one tensor that lies."""
    made, data = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}, b"\0" * 8
    return of_header(json.dumps(made).encode(), data)


def of_header(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def safetensors_threats() -> Iterator[Threat]:
    """T22: headers that lie, and JSON that is a bomb."""
    made, data = entries()
    good = json.dumps(made).encode()
    begin = "does not begin with a header"
    yield Threat("T22 length 2^63", WEIGHTS, of_header(good, data, 1 << 63), begin)
    yield Threat("T22 header of 100 MB", WEIGHTS, of_header(good, data, 100 << 20), begin)
    yield Threat("T22 empty", WEIGHTS, b"", begin)
    yield Threat("T22 beyond", WEIGHTS, placed(shape=[200], data_offsets=[0, 800]), "ends at byte")
    yield Threat("T22 hole", WEIGHTS, placed(data_offsets=[4, 12]), "ends at byte")
    yield Threat("T22 hidden data", WEIGHTS, of_header(good, data + b"more"), "4 bytes after")
    yield Threat("T22 overflow", WEIGHTS, placed(shape=[2**32, 2**32]), "takes")
    yield Threat("T22 negative", WEIGHTS, placed(shape=[-2]), "odd shape")
    yield Threat("T22 fraction", WEIGHTS, placed(shape=[2.0]), "odd shape")
    yield Threat("T22 flag", WEIGHTS, placed(shape=[True, 2]), "odd shape")
    yield Threat("T22 unknown type", WEIGHTS, placed(dtype="PICKLE"), "unknown type PICKLE")
    yield Threat("T22 nine dimensions", WEIGHTS, placed(shape=[2] + [1] * 8), "odd shape")
    yield Threat("T22 name twice", WEIGHTS, of_header(b'{"a":1,"a":2}'), "key twice")
    escaped = b'{"a\\"":{"b":1,"\\\\":2},"a\\"":3}'
    yield Threat("T22 name twice, escaped", WEIGHTS, of_header(escaped), "key twice")
    for name in (WEIGHTS, CONFIG, TOKENIZER, INDEX, "generation_config.json"):
        deep, start = b'{"a":' + b"[" * 100_000, "T22 depth"
        told = "damaged|more values"
        whole = of_header(deep) if name == WEIGHTS else deep
        yield Threat(f"{start} of {name}", name, whole, told)
    yield Threat("T22 depth 65", CONFIG, b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", "deeper than 64")
    yield Threat("T22 NaN", CONFIG, b'{"rms_norm_eps": NaN}', "damaged")
    yield Threat("T22 infinite", CONFIG, b'{"rms_norm_eps": 1e999}', "damaged|out of range")
    yield Threat(
        "T22 a million keys", CONFIG, b'{"a":[' + b"0," * 1_000_000 + b"0]}", "more values"
    )
    yield Threat("T22 no UTF-8", CONFIG, b'{"a": "\xff"}', "damaged")


def index_threats() -> Iterator[Threat]:
    """T06 and T10: shard names that lead elsewhere, and documents of the wrong types."""
    for name in (
        *("../../etc/passwd", "/etc/passwd", "a/../../b.safetensors", "C:\\x.safetensors"),
        *("..\\x.safetensors", "x.safetensors\0", ".safetensors", "\uff0e\uff0e/x.safetensors"),
        *("x.bin", "", "x.safetensors ", "x" * 200 + ".safetensors", 7, None, ["x"], {"x": 1}),
    ):
        data = json.dumps({"weight_map": {"model.embed_tokens.weight": name}}).encode()
        yield Threat(f"T06 {str(name)[:24]!r}", INDEX, data, "unsafe shard name|unsafe shard")
    elsewhere = json.dumps({"weight_map": {"a": "other.safetensors"}}).encode()
    yield Threat("T06 not in the model", INDEX, elsewhere, "which is not there")
    for data in (b"[]", b"null", b"{}", b'{"weight_map": []}', b'{"weight_map": {}}'):
        yield Threat(f"T10 index {data.decode()}", INDEX, data, "no weight_map|no object")
    config = json.loads((NANO / CONFIG).read_text())
    for change in (
        *({"hidden_size": "320"}, {"hidden_size": -1}, {"hidden_size": 1 << 62}),
        *({"num_hidden_layers": 0}, {"architectures": "Gemma4ForCausalLM"}, {"vocab_size": []}),
        *({"num_key_value_heads": [1]}, {"text_config": 7, "model_type": None}),
    ):
        data = json.dumps(config | change).encode()
        yield Threat(f"T10 config {json.dumps(change)}", CONFIG, data, "")


def code_threats() -> Iterator[Threat]:
    """T04, T23 and T24: archives and pickles by another name, and keys that ask for code."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("../../evil", "x" * 100)
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../evil"))
    archives = {
        "zip": zipped.getvalue(),
        "tar": tarred.getvalue(),
        "gzip": b"\x1f\x8b\x08" + zlib.compress(b"x" * 999),
        "7z": b"7z\xbc\xaf\x27\x1c" + b"\0" * 99,
        "pickle": pickle.dumps({"weight": print}),
        "old pickle": pickle.dumps({"weight": print}, protocol=0),
        "HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 99,
        "ELF": b"\x7fELF" + b"\0" * 99,
    }
    for kind, data in archives.items():
        number = "T04" if kind in ("zip", "tar", "gzip", "7z") else "T23"
        yield Threat(f"{number} {kind} as GGUF", GGUF, data, "does not begin as a GGUF")
        yield Threat(f"{number} {kind} as safetensors", WEIGHTS, data, "does not begin|no object")
    config = json.loads((NANO / CONFIG).read_text())
    for cve, change in (
        ("CVE-2026-4372", {"_attn_implementation_internal": "evil/kernel"}),
        ("CVE-2026-5241", {"text_config": {"_attn_implementation": "evil/kernel"}}),
        ("CVE-2026-22807", {"auto_map": {"AutoModel": "evil--modeling.Evil"}}),
        ("CVE-2025-66448", {"vision_config": {"auto_map": {"AutoConfig": "a.B"}}}),
        ("trust", {"trust_remote_code": True}),
        ("pipelines", {"custom_pipelines": {"x": {"impl": "evil.Pipe"}}}),
        ("kernels", {"deeper": [{"use_kernels": True}]}),
        ("experts", {"experts_implementation": "evil/kernel"}),
        ("repository", {"tokenizer_class": "evil/repository"}),
        ("quantization", {"quantization_config": {"quant_method": "bitsandbytes"}}),
        ("class", {"architectures": ["LightGlueForKeypointMatching"]}),
    ):
        told = r"auto_map|implementation|trust|custom|kernels|another repository|not one|not read"
        yield Threat(f"T24 {cve}", CONFIG, json.dumps(config | change).encode(), told)
    evil = b'{"auto_map": {"AutoTokenizer": ["evil.Tok", null]}}'
    yield Threat("T24 tokenizer", "tokenizer_config.json", evil, "auto_map")
    yield Threat("T24 generation", "generation_config.json", b'{"custom_generate": "x"}', "custom")
    yield Threat("T25 template of 2 MB", "chat_template.jinja", b"x" * (2 << 20), "at most")


FAMILIES: tuple[Callable[[], Iterator[Threat]], ...] = (
    gguf_threats,
    leak_threats,
    bomb_threats,
    safetensors_threats,
    index_threats,
    code_threats,
)


def threats() -> list[Threat]:
    """All of them."""
    return [threat for family in FAMILIES for threat in family()]


__all__ = ["GGUF", "U64", "Threat", "sound", "threats"]
