"""Where each tensor of a safetensors file lies: its header, read within bounds and checked.

+------------------+------------------------------------------------------------------------+------+
| length  u64 le   | {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}  | data |
+------------------+------------------------------------------------------------------------+------+
Offsets count from the end of the header. The tensors fill the data without overlaps and holes, so
a file cannot carry what nobody looks at, and nothing later reads past its end.
"""

import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gemmad.formats.json_text import LARGE, load_json
from gemmad.formats.limits import BadFile, open_regular, shown

MAX_HEADER_BYTES = 8 << 20
MAX_DIMS = 8
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


class TensorPlace(NamedTuple):
    """One tensor in its file."""

    name: str
    dtype: str  # as the format writes it: BF16
    shape: tuple[int, ...]
    begin: int  # byte in the file
    nbytes: int


def read_header(path: Path, most: int = MAX_HEADER_BYTES) -> list[TensorPlace]:
    """The tensors of `path`, in the order in which they lie.

    Raises:
        BadFile: it is damaged, cut off, or holds a type that is not known.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        text = _header(file, size, most)
    entries = load_json(text, LARGE)
    if not isinstance(entries, dict):
        raise BadFile("its header is no object")
    entries.pop("__metadata__", None)
    data = 8 + len(text)
    places = [_place(name, entry, data, size) for name, entry in entries.items()]
    places.sort(key=lambda place: (place.begin, place.nbytes))
    _check_layout(places, data, size)
    return places


def _header(file: BinaryIO, size: int, most: int) -> bytes:
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= min(most, size - 8):
        raise BadFile("it does not begin with a header of safetensors")
    text = file.read(length)
    if len(text) != length or text[:1] != b"{":
        raise BadFile("its header is no object")
    return text


def _place(name: str, entry: Any, data: int, size: int) -> TensorPlace:
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise BadFile(f"its header does not describe the tensor {shown(name)}") from None
    sound = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    if not sound or len(shape) > MAX_DIMS:
        raise BadFile(f"the tensor {shown(name)} has an odd shape or place")
    if not isinstance(kind, str) or kind not in ITEM_BYTES:
        raise BadFile(f"the tensor {shown(name)} is of the unknown type {shown(str(kind)[:20])}")
    nbytes = math.prod(shape) * ITEM_BYTES[kind]
    if end - begin != nbytes:
        raise BadFile(f"the tensor {shown(name)} takes {nbytes} bytes, not {end - begin}")
    if data + end > size:
        raise BadFile(f"it ends at byte {size}, in the tensor {shown(name)} or before it")
    return TensorPlace(name, kind, shape, data + begin, nbytes)


def _check_layout(places: list[TensorPlace], data: int, size: int) -> None:
    end = data
    for place in places:
        if place.begin != end:
            how = "overlaps another" if place.begin < end else "follows a hole"
            raise BadFile(f"the tensor {shown(place.name)} {how}")
        end += place.nbytes
    if end != size:
        raise BadFile(f"it has {size - end} bytes after its last tensor")
