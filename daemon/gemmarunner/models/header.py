"""Where each tensor of a safetensors file lies: its header, read within bounds and checked.

+------------------+------------------------------------------------------------------------+------+
| length  u64 le   | {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}  | data |
+------------------+------------------------------------------------------------------------+------+
Offsets count from the end of the header. A header that promises more than the file holds is
refused here, so that nothing later reads past the end of a mapping.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import torch

MAX_HEADER_BYTES = 32 << 20
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class BadHeader(ValueError):
    """The file is no whole safetensors file; the text says why, without its name."""


class Place(NamedTuple):
    """One tensor in its file."""

    name: str
    path: Path
    begin: int  # byte in the file
    nbytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def read_header(path: Path) -> list[Place]:
    """The tensors of `path`, in the order in which they lie.

    Raises:
        BadHeader: it is damaged, cut off, or holds a type that is not known.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise BadHeader("it does not begin with a header of safetensors")
        text = file.read(length)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"its header is damaged ({error})") from error
    if not isinstance(entries, dict):
        raise BadHeader("its header is no object")
    entries.pop("__metadata__", None)
    data = 8 + length
    places = [_place(name, entry, path, data, size) for name, entry in entries.items()]
    return sorted(places, key=lambda place: place.begin)


def _place(name: str, entry: Any, path: Path, data: int, size: int) -> Place:
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise BadHeader(f"its header does not describe the tensor {name[:80]}") from None
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise BadHeader(f"the tensor {name[:80]} has an odd shape or place")
    if kind not in DTYPES:
        raise BadHeader(f"the tensor {name[:80]} is of the unknown type {str(kind)[:20]}")
    nbytes = math.prod(shape) * DTYPES[kind].itemsize
    if end - begin != nbytes:
        raise BadHeader(f"the tensor {name[:80]} takes {nbytes} bytes, not {end - begin}")
    if data + end > size:
        raise BadHeader(f"it ends at byte {size}, in the tensor {name[:80]} or before it")
    return Place(name, path, data + begin, nbytes, DTYPES[kind], shape)
