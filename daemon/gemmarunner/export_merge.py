"""Joins the parts of a split GGUF model into one file: its metadata byte for byte, all tensors."""

import struct
from pathlib import Path
from typing import BinaryIO

from gemmad.api.errors import LoadFailed
from gemmad.formats.gguf import Gguf, GgufTensor, read_gguf
from gemmarunner.files import Files
from gemmarunner.models.gguf_file import read_model
from gemmarunner.models.weights import Progress

_CHUNK_BYTES = 8 << 20
_COUNT = b"split.count"
_SIZES = {2: 2, 3: 2, 4: 4, 5: 4, 10: 8, 11: 8}  # type of the value -> its bytes


def merge_parts(files: Files, path: Path, progress: Progress) -> None:
    """The model that lies in several GGUF files is in the one file `path`.

    Raises:
        LoadFailed: a part is damaged or missing.
    """
    parts = sorted(name for name in files if name.endswith(".gguf"))
    stored = read_model(files).tensors.values()  # all parts are here, and no tensor twice
    headers = {name: read_gguf(files[name]) for name in parts}
    first = next(name for name in parts if headers[name].metadata.get("split.no", 0) == 0)
    alignment = headers[first].alignment
    total, done = sum(tensor.info.nbytes for tensor in stored), 0
    with path.open("wb") as out:
        out.write(_keys(files[first], headers[first], len(stored)))
        offset = 0
        for info, _, _ in stored:
            out.write(_info(info, offset))
            offset += -(-info.nbytes // alignment) * alignment
        for info, source, _ in stored:
            out.write(b"\0" * (-out.tell() % alignment))
            with source.open("rb") as file:
                file.seek(info.begin)
                for size in _copied(file, out, info.nbytes):
                    done += size
                    progress(done, total)
        out.write(b"\0" * (-out.tell() % alignment))


def _keys(path: Path, header: Gguf, tensors: int) -> bytes:
    """The first part's begin up to its tensor infos, with the number of all and without parts."""
    with path.open("rb") as file:
        data = bytearray(file.read(header.infos_begin))
    data[8:16] = struct.pack("<Q", tensors)
    key = struct.pack("<Q", len(_COUNT)) + _COUNT
    at = data.rfind(key) + len(key)
    size = _SIZES.get(int.from_bytes(data[at : at + 4], "little"), 0)
    if data.count(key) != 1 or not size:
        raise LoadFailed(f"{path.name} does not say how many parts there are.")
    data[at + 4 : at + 4 + size] = b"\0" * size
    return bytes(data)


def _info(tensor: GgufTensor, offset: int) -> bytes:
    name = tensor.name.encode()
    dims = tuple(reversed(tensor.shape))
    return (
        struct.pack("<Q", len(name))
        + name
        + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type, offset)
    )


def _copied(source: BinaryIO, into: BinaryIO, nbytes: int) -> "list[int]":
    sizes = []
    while nbytes:
        piece = source.read(min(nbytes, _CHUNK_BYTES))
        if not piece:
            raise LoadFailed("A part of the model became shorter.", fix="Pull the model again.")
        into.write(piece)
        nbytes -= len(piece)
        sizes.append(len(piece))
    return sizes
