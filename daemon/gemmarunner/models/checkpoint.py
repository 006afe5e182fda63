"""Safetensors files of a repository, whole or in shards, wherever the blobs lie.

Files are known by their name in the repository; a blob's own file name means nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gemmad.api.errors import LoadFailed

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Checkpoint:
    """Tensors by name; each is read when asked for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Opens every shard the index names, or the single file.

        Raises:
            LoadFailed: a file is missing, or is not a safetensors file.
        """
        self._open: dict[str, Any] = {}  # tensor name -> open file that holds it
        for shard in _shards(files):
            handle = _opened(shard, files)
            self._open.update(dict.fromkeys(handle.keys(), handle))

    @property
    def names(self) -> list[str]:
        """Every tensor's name."""
        return sorted(self._open)

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor as stored."""
        part = self._open[name].get_slice(name)
        count = 1
        for size in part.get_shape():
            count *= size
        return count * _BYTES[part.get_dtype()]

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor, on the CPU and in its stored dtype.

        Raises:
            LoadFailed: no such tensor, or of another shape.
        """
        if name not in self._open:
            raise LoadFailed(f"The weights lack the tensor {name}.", fix=_AGAIN)
        tensor: Tensor = self._open[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise LoadFailed(
                f"The tensor {name} has shape {tuple(tensor.shape)}; its config wants {shape}.",
                fix=_AGAIN,
            )
        return tensor

    def dtype(self, name: str) -> torch.dtype:
        """Stored dtype of a tensor."""
        dtype: torch.dtype = self._open[name].get_slice(name)[:0].dtype
        return dtype


_AGAIN = "Are config.json and the weights of one revision? Pull the model again."
_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


def _shards(files: Mapping[str, Path]) -> list[str]:
    """Names of the files that hold tensors."""
    if INDEX not in files:
        return [SINGLE]
    index = json.loads(files[INDEX].read_text())
    return sorted(set(index["weight_map"].values()))


def _opened(name: str, files: Mapping[str, Path]) -> Any:
    if name not in files:
        raise LoadFailed(f"The model has no file {name}.", fix=_AGAIN)
    try:
        return safe_open(files[name], framework="pt")
    except (SafetensorError, OSError) as error:
        raise LoadFailed(f"{name} could not be read: {error}.", fix=_AGAIN) from error
