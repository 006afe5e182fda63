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

import math
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from gemmad.formats.ggml_types import GGML_TYPES as GGML_TYPES
from gemmad.formats.ggml_types import GgmlType as GgmlType
from gemmad.formats.gguf_bytes import HeaderBytes
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
    tensors: int = 65_536
    key_bytes: int = 256
    text_bytes: int = 1 << 20  # a chat template is the longest
    list_items: int = 2_000_000  # strings and bools of all arrays together
    item_bytes: int = 1 << 10
    name_bytes: int = 63  # ggml keeps 64 with the closing zero
    header_bytes: int = 64 << 20


LIMITS = GgufLimits()


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor; its bytes lie in the file, aligned, and overlap no other's."""

    name: str
    type: int  # id in GGML_TYPES
    shape: tuple[int, ...]  # as torch counts: rows first
    begin: int  # byte in the file
    nbytes: int


@dataclass(frozen=True, slots=True)
class Gguf:
    """The header of one file; of a split model, one part's."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[GgufTensor, ...]
    alignment: int


def read_gguf(
    path: Path, limits: GgufLimits = LIMITS, *, skipped: frozenset[str] = frozenset()
) -> Gguf:
    """The header of the GGUF file `path`; of `skipped` keys, lists are checked and not kept.

    Raises:
        BadFile: it is damaged, cut off, hostile, or of a version or type that is not known.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return _Reader(HeaderBytes(file, limits.header_bytes), limits, skipped).read()


class _Reader:
    def __init__(self, source: HeaderBytes, limits: GgufLimits, skipped: frozenset[str]) -> None:
        self._source = source
        self._limits = limits
        self._skipped = skipped
        self._items_left = limits.list_items

    def read(self) -> Gguf:
        version = self._version()
        tensors, keys = self._source.unpack(_COUNTS, "its counts")
        self._check_counts(tensors, keys)
        metadata = self._metadata(keys)
        alignment = _alignment(metadata)
        infos = [self._info() for _ in range(tensors)]
        start = -(-self._source.position // alignment) * alignment
        places = tuple(_place(info, start, alignment, self._source.size) for info in infos)
        _check_layout(places)
        return Gguf(version, metadata, places, alignment)

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
            found[key] = self._value(kind, f"its metadata {shown(key)}", key not in self._skipped)
        return found

    def _value(self, kind: int, what: str, keep: bool) -> Value:
        if kind == _STRING:
            return self._source.string(self._limits.text_bytes, what)
        if kind == _ARRAY:
            return self._array(what, keep)
        if kind == _BOOL:
            return self._source.take(1, what) != b"\0"
        if kind not in _PACKED:
            raise BadFile(f"{what} is of the unknown type {kind}")
        value: int | float = self._source.unpack(_PACKED[kind], what)[0]
        return value

    def _array(self, what: str, keep: bool) -> Value:
        kind, count = self._source.unpack(_ARRAY_HEAD, what)
        if kind in _SCALARS:
            return self._source.numbers(_SCALARS[kind], count, what)
        if kind == _ARRAY:
            raise BadFile(f"{what} is an array of arrays, which no model needs")
        if kind not in (_BOOL, _STRING):
            raise BadFile(f"{what} is an array of the unknown type {kind}")
        self._source.check(count, what)
        if count > self._items_left:
            raise BadFile(
                f"{what} is a list of {count}; at most {self._limits.list_items} items are read"
            )
        self._items_left -= count
        if kind == _BOOL:
            return [byte != 0 for byte in self._source.take(count, what)]
        return self._source.strings(count, self._limits.item_bytes, what, keep)

    def _info(self) -> "_Info":
        name = self._source.string(self._limits.name_bytes, "a tensor's name")
        what = f"the tensor {shown(name)!r}"
        (dims,) = self._source.unpack(_U32, what)
        if not name or dims > _MAX_DIMS:
            raise BadFile(f"{what} has no name or {dims} dimensions; at most {_MAX_DIMS} are read")
        *lengths, kind, offset = self._source.unpack(_INFO_TAILS[dims], what)
        return _Info(name, tuple(reversed(lengths)), kind, offset)


@dataclass(frozen=True, slots=True)
class _Info:
    """A tensor as the file describes it, nothing believed yet."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def _alignment(metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    sound = type(value) is int and 8 <= value <= 4096 and value & (value - 1) == 0
    if not sound:
        raise BadFile("its general.alignment is no power of two from 8 to 4096")
    assert isinstance(value, int)
    return value


def _place(info: _Info, start: int, alignment: int, size: int) -> GgufTensor:
    what = f"the tensor {shown(info.name)!r}"
    kind = GGML_TYPES.get(info.kind)
    if kind is None:
        raise BadFile(f"{what} is of the unknown type {info.kind}")
    row = info.shape[-1] if info.shape else 1
    if 0 in info.shape or row % kind.block_weights:
        raise BadFile(f"{what} has rows of {row}, which is no number of {kind.name} blocks")
    nbytes = math.prod(info.shape) // kind.block_weights * kind.block_bytes
    if info.offset % alignment:
        raise BadFile(f"{what} begins at {info.offset}, which is not aligned to {alignment}")
    begin = start + info.offset
    if begin + nbytes > size:
        raise BadFile(f"{what} ends at byte {begin + nbytes} of a file of {size}")
    return GgufTensor(info.name, info.kind, info.shape, begin, nbytes)


def _check_layout(tensors: tuple[GgufTensor, ...]) -> None:
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise BadFile("two of its tensors have one name")
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.begin):
        if tensor.begin < end:
            raise BadFile(f"the tensor {shown(tensor.name)!r} overlaps another")
        end = tensor.begin + tensor.nbytes
