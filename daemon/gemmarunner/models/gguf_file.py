"""A model's GGUF file, whole or split, as one set of metadata and tensors.

Read by `gemmad.formats.gguf`, which believes nothing a file says of itself; never by the `gguf`
package's reader. Non-text tensors of a file (`v.*`, `mm.*`, `a.*`) are there and of no interest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gemmad.api.errors import LoadFailed
from gemmad.formats.gguf import Gguf, GgufTensor, Value, read_gguf
from gemmad.formats.limits import BadFile
from gemmarunner.models.config import ConfigError

_AGAIN = "Pull the model again."
Files = Mapping[str, Path]


class StoredTensor(NamedTuple):
    """A tensor of a GGUF file and the file that holds it."""

    info: GgufTensor
    path: Path
    file_name: str  # in the repository


@dataclass(frozen=True, slots=True)
class GgufModel:
    """The headers of one model's files."""

    architecture: str
    metadata: Mapping[str, Value]  # of the first part, which has them all
    tensors: Mapping[str, StoredTensor]

    def keys(self) -> "Keys":
        """The metadata of its own architecture."""
        return Keys(self.architecture, self.metadata)


def is_gguf(files: Files) -> bool:
    """Whether these files are a GGUF model rather than a repository of safetensors."""
    return any(name.endswith(".gguf") for name in files)


def read_model(files: Files) -> GgufModel:
    """The GGUF model of the files, by their names in the repository.

    Raises:
        LoadFailed: a file is damaged, or parts of it are missing.
    """
    names = sorted(name for name in files if name.endswith(".gguf"))
    headers = {name: _header(name, files[name]) for name in names}
    order = _ordered(headers)
    tensors: dict[str, StoredTensor] = {}
    for name in order:
        for info in headers[name].tensors:
            if info.name in tensors:
                raise LoadFailed(f"{name} holds the tensor {info.name} once more.", fix=_AGAIN)
            tensors[info.name] = StoredTensor(info, files[name], name)
    metadata = headers[order[0]].metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise LoadFailed(f"{order[0]} does not say what its architecture is.", fix=_AGAIN)
    return GgufModel(architecture, metadata, tensors)


def forget_headers() -> None:
    """Headers read so far take no memory any more: a vocabulary is 100 MB of texts."""
    _read.cache_clear()


def _header(name: str, path: Path) -> Gguf:
    try:
        found = path.stat()
        return _read(path, found.st_size, found.st_mtime_ns)
    except (BadFile, OSError) as error:
        raise LoadFailed(f"{name} could not be read: {error}.", fix=_AGAIN) from error


@lru_cache(maxsize=16)
def _read(path: Path, size: int, mtime_ns: int) -> Gguf:
    """Read once for config, weights, tokenizer and template; another file has another stamp."""
    return read_gguf(path)


def _ordered(headers: Mapping[str, Gguf]) -> list[str]:
    """File names in the order of their parts."""
    numbers = {name: _part(name, header) for name, header in headers.items()}
    counts = {count for _, count in numbers.values()}
    whole = len(counts) == 1 and sorted(no for no, _ in numbers.values()) == list(range(*counts))
    if not whole:
        raise LoadFailed(
            f"The model's GGUF files ({', '.join(headers)}) are not one file or all its parts.",
            fix=_AGAIN,
        )
    return sorted(headers, key=lambda name: numbers[name])


def _part(name: str, header: Gguf) -> tuple[int, int]:
    """Number of this part, from 0, and how many there are."""
    number, count = (header.metadata.get(f"split.{key}", default) for key, default in _SPLIT)
    if type(number) is not int or type(count) is not int or not 0 <= count <= 10_000:  # 0: merged
        raise LoadFailed(f"{name}: split.no or split.count is no number of parts.", fix=_AGAIN)
    return number, max(count, 1)


_SPLIT = (("no", 0), ("count", 1))


class Keys:
    """Reads metadata of one architecture, in the types a model's configuration has."""

    def __init__(self, architecture: str, metadata: Mapping[str, Value]) -> None:
        self._prefix = architecture + "."
        self._metadata = metadata

    def has(self, key: str) -> bool:
        """Whether the file says it."""
        return self._prefix + key in self._metadata

    def integer(self, key: str, default: int | None = None) -> int:
        """A number of things; the default where the key is missing.

        Raises:
            ConfigError: missing without a default, or something else.
        """
        value = self._metadata.get(self._prefix + key, default)
        if type(value) is not int or value < 0:
            raise self.refused(key, "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A real number; errors of `integer`."""
        value = self._metadata.get(self._prefix + key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refused(key, "a number")
        return float(value)

    def per_layer(self, key: str, count: int) -> list[int]:
        """A number for each of `count` layers, which may be one for all; errors of `integer`."""
        value = self._metadata.get(self._prefix + key)
        if value is None or isinstance(value, bool | int | float | str):
            return [self.integer(key)] * count
        numbers = [int(item) for item in value if isinstance(item, int)]
        if len(numbers) != len(value) or len(numbers) < count or min(numbers, default=0) < 0:
            raise self.refused(key, f"a number, or one for each of {count} layers")
        return numbers[:count]

    def refused(self, key: str, wanted: str) -> ConfigError:
        """The error that names `key` and what is accepted."""
        value = self._metadata.get(self._prefix + key)
        told = "missing" if value is None else repr(value)[:80]
        return ConfigError(
            f"The GGUF file's {self._prefix}{key} is {told}; this decoder wants {wanted}.",
            fix="Is this a Gemma 4 model, and its file whole?",
        )
