"""Safetensors files of a repository, whole or in shards, wherever the blobs lie.

Files are known by their name in the repository; a blob's own file name means nothing. On the CPU
tensors are views of mapped files: a table of which few rows are looked up costs only those, and a
matrix that is packed afterwards is never held twice. For another device see `readahead.py`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmarunner.models.header import BadHeader, Place, read_header
from gemmarunner.models.mapped import MappedFiles

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
EMBEDDINGS = "embed_tokens.weight"


class Checkpoint:
    """Tensors by name; each is read when asked for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Reads the header of every shard the index names, or of the single file.

        Raises:
            LoadFailed: a file is missing, damaged or cut off.
        """
        self._places: dict[str, Place] = {}
        self._mapped = MappedFiles()
        self._file_names: dict[Path, str] = {}
        for shard in _shards(files):
            places = _header(shard, files)
            self._places |= {place.name: place for place in places}
            self._file_names[files[shard]] = shard

    @property
    def names(self) -> list[str]:
        """Every tensor's name."""
        return sorted(self._places)

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor as stored."""
        return self._places[name].nbytes

    def dtype(self, name: str) -> torch.dtype:
        """Stored dtype of a tensor."""
        return self._places[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Stored shape of a tensor."""
        return self._places[name].shape

    def file_name(self, name: str) -> str:
        """The repository's name of the file that holds a tensor."""
        return self._file_names[self._places[name].path]

    def places(self, prefix: str = "") -> list[Place]:
        """The tensors whose names begin with `prefix`, in the order in which models ask for them.

        That is by name with numbers as numbers, final norms late. Writers sort names as texts
        (layers.10 before layers.2); reading in their order would fill memory with layers whose turn
        is far off, and a jump between tensors of megabytes costs a disk nothing.
        """
        chosen = [place for name, place in self._places.items() if name.startswith(prefix)]
        return sorted(chosen, key=lambda place: natural(place.name))

    def place(self, name: str, shape: tuple[int, ...]) -> Place:
        """Where the tensor lies.

        Raises:
            LoadFailed: no such tensor, or of another shape.
        """
        if name not in self._places:
            raise LoadFailed(f"The weights lack the tensor {name}.", fix=_AGAIN)
        place = self._places[name]
        if place.shape != shape:
            raise LoadFailed(
                f"The tensor {name} has shape {place.shape}; its config wants {shape}.", fix=_AGAIN
            )
        return place

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor, on the CPU and in its stored dtype; not to be written to.

        Raises:
            LoadFailed: no such tensor, of another shape, or its file cannot be mapped.
        """
        place = self.place(name, shape)
        try:
            stored = self._mapped.view(place.path, place.begin, place.nbytes)
        except (OSError, RuntimeError) as error:
            raise self.unreadable(name, error) from error
        if place.begin % place.dtype.itemsize:  # files of old writers
            stored = stored.clone()
        return stored.view(place.dtype).view(shape)

    def unreadable(self, name: str, error: object) -> LoadFailed:
        """The error that tells that the file of a tensor could not be read."""
        return _unreadable(self.file_name(name), error)


_AGAIN = "Are config.json and the weights of one revision? Pull the model again."


def text_prefix(checkpoint: Checkpoint) -> str:
    """What stands before the text stack's names: it differs between text and media checkpoints."""
    endings = ("." + EMBEDDINGS, EMBEDDINGS)
    found = [name for name in checkpoint.names if name.endswith(endings[0]) or name == EMBEDDINGS]
    if len(found) != 1:
        raise LoadFailed(
            f"The weights hold {len(found)} tensors named {EMBEDDINGS}; one is wanted.",
            fix="Is this a Gemma 4 target?",
        )
    return found[0].removesuffix(EMBEDDINGS)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts names with numbers as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _shards(files: Mapping[str, Path]) -> list[str]:
    """Names of the files that hold tensors."""
    if INDEX not in files:
        return [SINGLE]
    try:
        return sorted(set(json.loads(files[INDEX].read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(INDEX, repr(error)) from error


def _header(name: str, files: Mapping[str, Path]) -> list[Place]:
    if name not in files:
        raise LoadFailed(f"The model has no file {name}.", fix=_AGAIN)
    try:
        return read_header(files[name])
    except (BadHeader, OSError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: object) -> LoadFailed:
    return LoadFailed(f"{name} could not be read: {error}.", fix=_AGAIN)
