"""Reads the header of a GGUF file of anybody: bounded before every loop, checked, never the data.

+------+-------------+-------------+----------+------------+--------------+---------+--------------+
| GGUF | version u32 | tensors u64 | keys u64 | key: value | tensor infos | padding | tensor data  |
+------+-------------+-------------+----------+------------+--------------+---------+--------------+
key: value      string, type u32, value
string          length u64, UTF-8
array           type of its elements u32, count u64, elements (no arrays of arrays)
tensor info     name string, dims u32, dim u64 ... (fastest first), type u32, offset u64 in the data

Versions 2 and 3, little-endian. What the file says of itself (counts, lengths, sizes) is compared
with the bytes that are there before anything is done with it: see the CVEs in the tests.
"""

import hashlib
import struct
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from gemmad.formats.ggml_types import GGML_TYPES as GGML_TYPES
from gemmad.formats.ggml_types import GgmlType as GgmlType
from gemmad.formats.gguf_bytes import HeaderBytes
from gemmad.formats.gguf_tensors import GgufTensor as GgufTensor
from gemmad.formats.gguf_tensors import TensorInfo, check_layout, place
from gemmad.formats.limits import BadFile as BadFile
from gemmad.formats.limits import open_regular, shown

Value: TypeAlias = "bool | int | float | str | list[str] | list[bool] | array[Any]"

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

_NUMBERS = (0, 1, 2, 3, 4, 5, 6, 10, 11, 12)  # bool and string are 7 and 8, an array is 9
_SCALARS = dict(zip(_NUMBERS, "BbHhIifQqd", strict=True))  # value type -> how it is packed
_PACKED = {kind: struct.Struct(f"<{code}") for kind, code in _SCALARS.items()}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_U32, _ARRAY_HEAD, _COUNTS = struct.Struct("<I"), struct.Struct("<IQ"), struct.Struct("<QQ")
_MAX_DIMS = 4  # ggml's own
_INFO_TAILS = [struct.Struct(f"<{dims}QIQ") for dims in range(_MAX_DIMS + 1)]
_LEAST_KEY_BYTES = 8 + 1 + 4 + 1  # of a key and its value
_LEAST_INFO_BYTES = 8 + 1 + 4 + 4 + 8  # of a tensor info


@dataclass(frozen=True, slots=True)
class GgufLimits:
    """What an honest file never needs more of."""

    keys: int = 4_096
    tensors: int = 16_384  # a published one has 1,500; beyond this, infos alone take a second
    key_bytes: int = 256
    text_bytes: int = 1 << 20  # a chat template is the longest
    texts_bytes: int = 4 << 20  # of all texts together, which may take four times that in memory
    list_items: int = 1_000_000  # strings and bools of all arrays: a vocabulary has 777,000
    list_numbers: int = 4_000_000  # of all arrays
    item_bytes: int = 1 << 10
    name_bytes: int = 63  # ggml keeps 64 with the closing zero
    header_bytes: int = 64 << 20


LIMITS = GgufLimits()


@dataclass(frozen=True, slots=True)
class Gguf:
    """The header of one file; of a split model, one part's."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[GgufTensor, ...]
    alignment: int
    digests: dict[str, str] = field(default_factory=dict)  # sha256 of lists that were not kept
    infos_begin: int = 0  # byte in the file: keys lie before it


def read_gguf(
    path: Path,
    limits: GgufLimits = LIMITS,
    *,
    longest: int | None = None,
    hashed: frozenset[str] = frozenset(),
) -> Gguf:
    """The header of the GGUF file `path`.

    With `longest`, lists of more items and all lists of strings are checked, and empty in the
    metadata. Of those that are `hashed`, a hash is kept, of each string's length as u32 and UTF-8.

    Raises:
        BadFile: it is damaged, cut off, hostile, or of a version or type that is not known.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return _Reader(HeaderBytes(file, limits.header_bytes), limits, longest, hashed).read()


class _Reader:
    def __init__(
        self,
        source: HeaderBytes,
        limits: GgufLimits,
        longest: int | None,
        hashed: frozenset[str],
    ) -> None:
        self._source = source
        self._limits = limits
        self._keeps_texts = longest is None
        self._longest = limits.header_bytes if longest is None else longest
        self._hashed = hashed
        self._digests: dict[str, str] = {}
        self._items_left = limits.list_items
        self._numbers_left = limits.list_numbers
        self._texts_left = limits.texts_bytes

    def read(self) -> Gguf:
        version = self._version()
        tensors, keys = self._source.unpack(_COUNTS, "its counts")
        self._check_counts(tensors, keys)
        metadata = self._metadata(keys)
        alignment, infos_begin = _alignment(metadata), self._source.position
        infos = [self._info() for _ in range(tensors)]
        start = -(-self._source.position // alignment) * alignment
        places = tuple(place(info, start, alignment, self._source.size) for info in infos)
        check_layout(places)
        return Gguf(version, metadata, places, alignment, self._digests, infos_begin)

    def _version(self) -> int:
        if self._source.left < len(MAGIC) or self._source.take(len(MAGIC), "its name") != MAGIC:
            raise BadFile("it does not begin as a GGUF file")
        version: int = self._source.unpack(_U32, "its version")[0]
        if version in VERSIONS:
            return version
        if version & 0xFFFF == 0:
            raise BadFile("it is a big-endian GGUF file; only little-endian ones are read")
        raise BadFile(f"it is GGUF version {version}; versions 2 and 3 are read")

    def _check_counts(self, tensors: int, keys: int) -> None:
        if keys > self._limits.keys:
            raise BadFile(
                f"it announces {keys} metadata keys; at most {self._limits.keys} are read"
            )
        if tensors > self._limits.tensors:
            raise BadFile(
                f"it announces {tensors} tensors; at most {self._limits.tensors} are read"
            )
        least = keys * _LEAST_KEY_BYTES + tensors * _LEAST_INFO_BYTES
        self._source.check(least, f"the {keys} keys and {tensors} tensors it announces")

    def _metadata(self, keys: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for _ in range(keys):
            key = self._source.string(self._limits.key_bytes, "a metadata key")
            if not key or key in found:
                raise BadFile(f"its metadata key {shown(key)!r} is empty or there twice")
            (kind,) = self._source.unpack(_U32, "a metadata type")
            found[key] = self._value(kind, key, f"its metadata {shown(key)}")
        return found

    def _value(self, kind: int, key: str, what: str) -> Value:
        if kind == _STRING:
            return self._text(what)
        if kind == _ARRAY:
            return self._array(key, what)
        if kind == _BOOL:
            return self._source.take(1, what) != b"\0"
        if kind not in _PACKED:
            raise BadFile(f"{what} is of the unknown type {kind}")
        value: int | float = self._source.unpack(_PACKED[kind], what)[0]
        return value

    def _text(self, what: str) -> str:
        begin = self._source.position
        text = self._source.string(min(self._limits.text_bytes, self._texts_left), what)
        self._texts_left -= self._source.position - begin
        return text

    def _array(self, key: str, what: str) -> Value:
        kind, count = self._source.unpack(_ARRAY_HEAD, what)
        if kind in _SCALARS:
            self._numbers_left = _spent(self._numbers_left, count, what)
            return self._source.numbers(_SCALARS[kind], count, what, keep=count <= self._longest)
        if kind == _ARRAY:
            raise BadFile(f"{what} is an array of arrays, which no model needs")
        if kind not in (_BOOL, _STRING):
            raise BadFile(f"{what} is an array of the unknown type {kind}")
        self._source.check(count, what)
        self._items_left = _spent(self._items_left, count, what)
        if kind == _BOOL:
            flags = [byte != 0 for byte in self._source.take(count, what)]
            return flags if count <= self._longest else []
        return self._strings(key, count, what)

    def _strings(self, key: str, count: int, what: str) -> list[str]:
        digest = hashlib.sha256() if key in self._hashed else None
        most, keep = self._limits.item_bytes, self._keeps_texts
        found = self._source.strings(count, most, what, keep=keep, digest=digest)
        if digest is not None and count:
            self._digests[key] = digest.hexdigest()
        return found

    def _info(self) -> TensorInfo:
        name = self._source.string(self._limits.name_bytes, "a tensor's name")
        what = f"the tensor {shown(name)!r}"
        (dims,) = self._source.unpack(_U32, what)
        if not name or dims > _MAX_DIMS:
            raise BadFile(f"{what} has no name or {dims} dimensions; at most {_MAX_DIMS} are read")
        *lengths, kind, offset = self._source.unpack(_INFO_TAILS[dims], what)
        return TensorInfo(name, tuple(reversed(lengths)), kind, offset)


def _spent(left: int, count: int, what: str) -> int:
    """What is left of a bound after a list of `count`."""
    if count > left:
        raise BadFile(f"{what} is a list of {count}; at most {left} more items are read")
    return left - count


def _alignment(metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    sound = type(value) is int and 8 <= value <= 4096 and value & (value - 1) == 0
    if not sound:
        raise BadFile("its general.alignment is no power of two from 8 to 4096")
    assert isinstance(value, int)
    return value
