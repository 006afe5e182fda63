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
from gemmarunner.models.compressed import CompressedTake
from gemmarunner.models.config import DrafterConfig, TargetConfig
from gemmarunner.models.drafter import Drafter
from gemmarunner.models.gguf_config import read_drafter_config as read_gguf_drafter
from gemmarunner.models.gguf_config import read_target_config as read_gguf_target
from gemmarunner.models.gguf_file import GgufModel, is_gguf, read_model
from gemmarunner.models.gguf_weights import GgufWeights, model_bytes, packing_notes, stored_dtype
from gemmarunner.models.hf_config import read_drafter_config, read_target_config
from gemmarunner.models.linear import (
    Linear,
    MakeLinear,
    fast_bf16,
    make_linear,
    make_row_linear,
    packs_half,
)
from gemmarunner.models.lora import AdaptedTake, read_adapter
from gemmarunner.models.packing import packer
from gemmarunner.models.pagecache import PageReader
from gemmarunner.models.quantized import check_quantization, is_compressed
from gemmarunner.models.readahead import ReadAhead
from gemmarunner.models.target import Target
from gemmarunner.models.weights import Matrix, Take, under

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
    *,
    adapter: Mapping[str, Path] | None = None,
    notes: list[str] | None = None,
) -> Target:
    """A target of the files, by their names in the repository; `dtype` None: as stored.

    `quantize` (int8, int4) packs its big matrices, see `packing.py`.

    Raises:
        ConfigError: config.json describes no model this decoder can run.
        LoadFailed: a file or tensor is missing, damaged or of the wrong shape.
    """
    linear, head = (make_linear, make_linear) if quantize is None else _packing(quantize, notes)
    with open_target(files, device, dtype, progress, adapter=adapter, notes=notes) as opened:
        return Target(*opened, linear=linear, head=head)


def load_drafter(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    quantize: str | None = None,
    *,
    notes: list[str] | None = None,
) -> Drafter:
    """A drafter of the files, not yet bound to a target; arguments and errors of `load_target`."""
    linear, head = (make_row_linear, make_linear) if quantize is None else _draft_packing(quantize)
    with open_drafter(files, device, dtype, progress, notes=notes) as opened:
        return Drafter(*opened, linear=linear, head=head)


@contextlib.contextmanager
def open_target(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    *,
    adapter: Mapping[str, Path] | None = None,
    notes: list[str] | None = None,
    fused: bool = False,
) -> Iterator[Opened[TargetConfig]]:
    """A target's config and tensors, for whichever decoder is built of them in the block.

    `fused`: it multiplies with packed matrices on any device. `notes` gets what a person should
    know of how weights are kept. Other arguments and errors of `load_target`; `take` raises
    LoadFailed too.
    """
    if is_gguf(files):
        model = read_model(files)
        wanted = read_gguf_target(model)
        heads = tuple(
            (wanted.heads * layer.head_dim, layer.kv_heads * layer.head_dim)
            for layer in wanted.layers
        )
        with _gguf(model, device, dtype, progress, notes, fused=fused, heads=heads) as weights:
            take = _adapted(weights, adapter, wanted, weights.dtype, notes)
            yield Opened(wanted, take, weights.device, weights.dtype)
        return
    generation, settings = "generation_config.json", read_settings(files, "config.json")
    check_quantization(settings)
    config = read_target_config(
        settings, read_settings(files, generation) if generation in files else None
    )
    checkpoint = Checkpoint(files)
    prefix = text_prefix(checkpoint)
    with _Reader(checkpoint, prefix, device, dtype, progress) as reader:
        take = _plain_weights(settings, checkpoint, prefix, reader, notes, fused=fused)
        take = _adapted(take, adapter, config, reader.dtype, notes)
        yield Opened(config, take, reader.device, reader.dtype)


@contextlib.contextmanager
def open_drafter(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    *,
    notes: list[str] | None = None,
    fused: bool = False,
) -> Iterator[Opened[DrafterConfig]]:
    """As `open_target`, for a drafter."""
    if is_gguf(files):
        model = read_model(files)
        wanted = read_gguf_drafter(model)
        with _gguf(model, device, dtype, progress, notes, fused=fused, heads=None) as weights:
            yield Opened(wanted, weights, weights.device, weights.dtype)
        return
    settings = read_settings(files, "config.json")
    check_quantization(settings)
    config, checkpoint = read_drafter_config(settings), Checkpoint(files)
    with _Reader(checkpoint, "", device, dtype, progress) as reader:
        take = _plain_weights(settings, checkpoint, "", reader, notes, fused=fused)
        yield Opened(config, take, reader.device, reader.dtype)


def _plain_weights(
    settings: Mapping[str, object],
    checkpoint: Checkpoint,
    prefix: str,
    reader: "_Reader",
    notes: list[str] | None,
    *,
    fused: bool,
) -> Take:
    """The tensors below `prefix`, whatever they are compressed as."""
    take = under(reader.take, prefix) if prefix else reader.take
    if not is_compressed(settings):
        return take
    shapes = {place.name.removeprefix(prefix): place.shape for place in checkpoint.places(prefix)}
    told = [] if notes is None else notes
    keep_packed = _keeps_packed(reader.device.type, reader.dtype, fused=fused)
    return CompressedTake(take, shapes, reader.dtype, told, keep_packed=keep_packed)


def _keeps_packed(device: str, dtype: torch.dtype, *, fused: bool) -> bool:
    """Whether matrices that a file has packed are of use as they are."""
    return fused or (device == "cpu" and dtype is torch.float32 and packs_half())


def _adapted(
    take: Take,
    adapter: Mapping[str, Path] | None,
    config: TargetConfig,
    dtype: torch.dtype,
    notes: list[str] | None,
) -> Take:
    """`take` with the adapter of these files merged in, if there is one."""
    if not adapter:
        return take
    told = [] if notes is None else notes
    return AdaptedTake(take, read_adapter(adapter, config), dtype, told)


def _gguf(
    model: GgufModel,
    device: str,
    dtype: torch.dtype | None,
    progress: Progress | None,
    notes: list[str] | None,
    *,
    fused: bool,
    heads: tuple[tuple[int, int], ...] | None,
) -> GgufWeights:
    """The weights of a GGUF file; `heads` of a target. They stay packed where that is of use."""
    runs_in = dtype or stored_dtype(model)
    keep_packed = _keeps_packed(device, runs_in, fused=fused)
    if notes is not None:
        notes += packing_notes(model, keep_packed=keep_packed)
    return GgufWeights(
        model,
        torch.device(device),
        runs_in,
        progress,
        is_drafter=heads is None,
        heads=heads or (),
        keep_packed=keep_packed,
    )


class Stored(NamedTuple):
    """A model's weights as its files have them."""

    dtype: torch.dtype  # the widest floating tensor speaks for all
    nbytes: int
    held_bytes: int | None  # in memory, where the dtype it runs in does not say so


def stored_weights(files: Mapping[str, Path]) -> Stored:
    """Dtype and size of the weights of these files.

    Raises:
        LoadFailed: a file is missing or damaged, or holds no weights.
    """
    if is_gguf(files):
        model = read_model(files)
        dtype, nbytes = stored_dtype(model), model_bytes(model)
        return Stored(dtype, nbytes, nbytes if dtype is not torch.float32 else None)
    checkpoint = Checkpoint(files)
    sizes = {name: checkpoint.nbytes(name) for name in checkpoint.names}
    floating = {n: size for n, size in sizes.items() if checkpoint.dtype(n).is_floating_point}
    if not floating:
        raise LoadFailed("The weights hold no tensors.", fix="Pull the model again.")
    widest = max(floating, key=floating.__getitem__)
    return Stored(checkpoint.dtype(widest), sum(sizes.values()), None)


def _packing(quantize: str, notes: list[str] | None) -> tuple[MakeLinear, MakeLinear]:
    """How the layers' matrices and the head are kept.

    What `quantize` made 8 bits may also be multiplied in 8 bits on a CPU (one scale a row,
    activations rounded): the user asked for that precision, which a file's own Q8_0 does not say.
    """
    pack = packer(quantize, notes)

    def kept(name: str) -> MakeLinear:
        in_bytes = quantize == "int8" or name == "head"

        def linear(weight: Matrix) -> Linear:
            return make_linear(
                pack(name, weight), requantize=in_bytes and isinstance(weight, Tensor)
            )

        return linear

    return kept(""), kept("head")


def _draft_packing(quantize: str) -> tuple[MakeLinear, MakeLinear]:
    """As `_packing`, for a drafter: what multiplying in 8 bits costs is drafts, never answers."""
    pack = packer(quantize)

    def linear(weight: Matrix) -> Linear:
        kept = pack("", weight)
        if isinstance(kept, Tensor):
            return make_row_linear(kept)
        return make_linear(kept, requantize=True)

    return linear, lambda weight: make_linear(pack("head", weight), requantize=True)


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


def text_prefix(checkpoint: Checkpoint) -> str:
    """What stands before the text stack's names: it differs between text and media checkpoints."""
    endings = ("." + _TABLE, _TABLE)
    found = [name for name in checkpoint.names if name.endswith(endings[0]) or name == _TABLE]
    if len(found) != 1:
        raise LoadFailed(
            f"The weights hold {len(found)} tensors named {_TABLE}; one is wanted.",
            fix="Is this a Gemma 4 target?",
        )
    return found[0].removesuffix(_TABLE)


def read_settings(files: Mapping[str, Path], name: str) -> Mapping[str, object]:
    if name not in files:
        raise LoadFailed(f"The model has no file {name}.", fix="Pull the model again.")
    try:
        data = json.loads(files[name].read_text())
    except ValueError as error:
        raise LoadFailed(f"{name} is not JSON: {error}.", fix="Pull the model again.") from error
    if not isinstance(data, dict):
        raise LoadFailed(f"{name} is not a JSON object.", fix="Pull the model again.")
    return data
