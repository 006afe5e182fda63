"""Reads the JSON header of a safetensors file: tensor shapes and types, never the data.

+------------------+---------------------------------------------------+------+
| length  u64 le   | {"name": {"dtype": "BF16", "shape": [2, 3], ...}} | data |
+------------------+---------------------------------------------------+------+
"""

import math
import struct
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec

MAX_HEADER_BYTES = 32 << 20


class BadHeader(ValueError):
    """The file does not begin with a safetensors header."""


class WeightFacts(NamedTuple):
    """What the header says of all tensors together."""

    parameters: int
    dtype: str  # of most parameters, e.g. BF16


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]


def weight_facts(path: Path) -> WeightFacts:
    """Parameter count and main type of the weights in `path`.

    Raises:
        BadHeader: the file is not safetensors.
        OSError: it cannot be read.
    """
    counts: Counter[str] = Counter()
    for tensor in _tensors(path):
        if any(length < 0 for length in tensor.shape):
            raise BadHeader(f"{path.name} has a tensor with a negative size")
        counts[tensor.dtype] += math.prod(tensor.shape)
    if not counts:
        raise BadHeader(f"{path.name} has no tensors")
    return WeightFacts(counts.total(), counts.most_common(1)[0][0])


def _tensors(path: Path) -> list[_Tensor]:
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise BadHeader(f"{path.name} is not a safetensors file")
        header = file.read(length)
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        return [msgspec.json.decode(value, type=_Tensor) for value in raw.values()]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadHeader(f"{path.name} has a damaged header: {error}") from error


def size_label(parameters: int) -> str:
    """A parameter count as people write it: 13.7M, 4.5B."""
    for unit, factor in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= factor:
            return f"{parameters / factor:.3g}{unit}"
    return str(parameters)
