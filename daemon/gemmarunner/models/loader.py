"""From files on disk to a target or drafter ready to run."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmarunner.models.checkpoint import Checkpoint
from gemmarunner.models.config import DrafterConfig, TargetConfig
from gemmarunner.models.drafter import Drafter
from gemmarunner.models.hf_config import read_drafter_config, read_target_config
from gemmarunner.models.linear import MakeLinear, fast_bf16, make_linear, packs_half
from gemmarunner.models.packing import packer
from gemmarunner.models.pagecache import PageReader
from gemmarunner.models.readahead import ReadAhead
from gemmarunner.models.target import Target
from gemmarunner.models.weights import Take, under

Config = TypeVar("Config")
Progress = Callable[[int, int], None]  # bytes read, bytes to read

_TABLE = "embed_tokens.weight"
# Below this float32 costs nothing that matters, and verifying drafts is exact in it.
_SMALL_BYTES = 256 * 2**20


# Rows are looked up in it, so on a CPU it stays on disk until one is.
_LOOKED_UP = "embed_tokens_per_layer.weight"


class Opened(NamedTuple, Generic[Config]):
    """A checkpoint while its tensors are taken: what a model is built from."""

    config: Config
    take: Take
    device: torch.device
    dtype: torch.dtype


def load_target(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    quantize: str | None = None,
) -> Target:
    """A target of the files, by their names in the repository; `dtype` None: as stored.

    `quantize` (int8, int4) packs its big matrices, see `packing.py`.

    Raises:
        ConfigError: config.json describes no model this decoder can run.
        LoadFailed: a file or tensor is missing, damaged or of the wrong shape.
    """
    linear, head = (make_linear, make_linear) if quantize is None else _packing(quantize)
    with open_target(files, device, dtype, progress) as opened:
        return Target(*opened, linear=linear, head=head)


def load_drafter(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Drafter:
    """A drafter of the files, not yet bound to a target; arguments and errors of `load_target`."""
    with open_drafter(files, device, dtype, progress) as opened:
        return Drafter(*opened)


@contextlib.contextmanager
def open_target(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Iterator[Opened[TargetConfig]]:
    """A target's config and tensors, for whichever decoder is built of them in the block.

    Arguments and errors of `load_target`; `take` raises LoadFailed too.
    """
    generation = "generation_config.json"
    config = read_target_config(
        _json(files, "config.json"), _json(files, generation) if generation in files else None
    )
    checkpoint = Checkpoint(files)
    prefix = _prefix(checkpoint)
    with _Reader(checkpoint, prefix, device, dtype, progress) as reader:
        yield Opened(config, under(reader.take, prefix), reader.device, reader.dtype)


@contextlib.contextmanager
def open_drafter(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Iterator[Opened[DrafterConfig]]:
    """As `open_target`, for a drafter."""
    config = read_drafter_config(_json(files, "config.json"))
    with _Reader(Checkpoint(files), "", device, dtype, progress) as reader:
        yield Opened(config, reader.take, reader.device, reader.dtype)


def _packing(quantize: str) -> tuple[MakeLinear, MakeLinear]:
    """How the layers' matrices and the head are kept.

    What `quantize` made 8 bits may also be multiplied in 8 bits on a CPU (one scale a row,
    activations rounded): the user asked for that precision, which a file's own Q8_0 does not say.
    """
    pack = packer(quantize)

    def kept(name: str) -> MakeLinear:
        in_bytes = quantize == "int8" or name == "head"
        return lambda weight: make_linear(pack(name, weight), requantize=in_bytes)

    return kept(""), kept("head")


def choose_dtype(
    device: str, checkpoint_dtype: torch.dtype, weight_bytes: int, free_bytes: int
) -> torch.dtype:
    """The dtype to run in, of weights that take `weight_bytes` as stored.

    1. A small model (`_SMALL_BYTES`) runs in float32 anywhere, where texts stay exact.
    2. An accelerator, or a CPU with fast bf16, runs the checkpoint as it is.
    3. Another CPU emulates bf16 and is several times slower in it, so float32, as long as that
       takes no more than half of the free memory; else as stored. Where matrices are kept as
       float16 (see `linear.py`), float32 is about computing only and takes no more than stored.
    """
    if weight_bytes <= _SMALL_BYTES:  # 1
        return torch.float32
    if not device.startswith("cpu") or fast_bf16():  # 2
        return checkpoint_dtype
    widened = 1 if packs_half() else 4 // checkpoint_dtype.itemsize
    return torch.float32 if weight_bytes * widened <= free_bytes // 2 else checkpoint_dtype  # 3


class _Reader:
    """Takes tensors out of a checkpoint, moved and converted, and counts their bytes."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        prefix: str,
        device: str,
        dtype: torch.dtype | None,
        progress: Progress | None,
    ) -> None:
        places = checkpoint.places(prefix)
        self.device = torch.device(device)
        table = next((p.dtype for p in places if p.name.endswith(_TABLE)), torch.float32)
        self.dtype = dtype or table
        self._checkpoint = checkpoint
        self._progress = progress or (lambda done, total: None)
        self._total = sum(place.nbytes for place in places)
        self._done = 0
        self._ahead: ReadAhead | None = None
        self._pages: PageReader | None = None
        try:
            if self.device.type == "cpu":
                self._pages = PageReader([p for p in places if not p.name.endswith(_LOOKED_UP)])
            else:
                self._ahead = ReadAhead(places, self.device)
        except OSError as error:
            raise checkpoint.unreadable(places[0].name, error) from error

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for reader in (self._ahead, self._pages):
            if reader is not None:
                reader.close()

    def take(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        tensor = self._stored(name, shape)
        self._done += tensor.nbytes
        self._progress(self._done, self._total)
        converts = tensor.is_floating_point() and not stored
        return tensor.to(self.device, self.dtype if converts else None)

    def _stored(self, name: str, shape: tuple[int, ...]) -> Tensor:
        place = self._checkpoint.place(name, shape)
        if self._pages is not None:
            if not name.endswith(_LOOKED_UP):
                self._pages.walked(place.nbytes)
            return self._checkpoint.read(name, shape)
        assert self._ahead is not None
        try:
            return self._ahead.get(name).view(place.dtype).view(shape)
        except OSError as error:
            raise self._checkpoint.unreadable(name, error) from error


def _prefix(checkpoint: Checkpoint) -> str:
    """What stands before the text stack's names: it differs between text and media checkpoints."""
    endings = ("." + _TABLE, _TABLE)
    found = [name for name in checkpoint.names if name.endswith(endings[0]) or name == _TABLE]
    if len(found) != 1:
        raise LoadFailed(
            f"The weights hold {len(found)} tensors named {_TABLE}; one is wanted.",
            fix="Is this a Gemma 4 target?",
        )
    return found[0].removesuffix(_TABLE)


def _json(files: Mapping[str, Path], name: str) -> Mapping[str, object]:
    if name not in files:
        raise LoadFailed(f"The model has no file {name}.", fix="Pull the model again.")
    try:
        data = json.loads(files[name].read_text())
    except ValueError as error:
        raise LoadFailed(f"{name} is not JSON: {error}.", fix="Pull the model again.") from error
    if not isinstance(data, dict):
        raise LoadFailed(f"{name} is not a JSON object.", fix="Pull the model again.")
    return data
