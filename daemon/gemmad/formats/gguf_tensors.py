"""Where the tensors of a GGUF file lie: what their infos say, checked against the file's size."""

import math
from dataclasses import dataclass

from gemmad.formats.ggml_types import GGML_TYPES
from gemmad.formats.limits import BadFile, shown


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor; its bytes lie in the file, aligned, and overlap no other's."""

    name: str
    type: int  # id in GGML_TYPES
    shape: tuple[int, ...]  # as torch counts: rows first
    begin: int  # byte in the file
    nbytes: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the file describes it, nothing believed yet."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def place(info: TensorInfo, start: int, alignment: int, size: int) -> GgufTensor:
    """The tensor in a file of `size` bytes whose data begins at `start`.

    Raises:
        BadFile: its type is not known, or it is not wholly in the file.
    """
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


def check_layout(tensors: tuple[GgufTensor, ...]) -> None:
    """No two share a name or a byte.

    Raises:
        BadFile: two do.
    """
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise BadFile("two of its tensors have one name")
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.begin):
        if tensor.begin < end:
            raise BadFile(f"the tensor {shown(tensor.name)!r} overlaps another")
        end = tensor.begin + tensor.nbytes
