"""Where each tensor of a safetensors file lies, as torch's types; `gemmad.formats` reads it."""

from pathlib import Path
from typing import NamedTuple

import torch

from gemmad.formats import safetensors
from gemmad.formats.limits import BadFile

MAX_HEADER_BYTES = safetensors.MAX_HEADER_BYTES
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
    try:
        found = safetensors.read_header(path, MAX_HEADER_BYTES)
    except BadFile as error:
        raise BadHeader(str(error)) from error
    return [_place(path, place) for place in found]


def _place(path: Path, place: safetensors.TensorPlace) -> Place:
    if place.dtype not in DTYPES:
        raise BadHeader(f"the tensor {place.name[:80]} is of the unknown type {place.dtype}")
    dtype = DTYPES[place.dtype]
    return Place(place.name, path, place.begin, place.nbytes, dtype, place.shape)
