"""A checkpoint's config and tensors, in whatever format, while a model is built of them."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch

from gemmarunner.models.checkpoint import Checkpoint, text_prefix
from gemmarunner.models.compressed import CompressedTake
from gemmarunner.models.config import DrafterConfig, TargetConfig
from gemmarunner.models.gguf_config import read_drafter_config as read_gguf_drafter
from gemmarunner.models.gguf_config import read_target_config as read_gguf_target
from gemmarunner.models.gguf_file import GgufModel, is_gguf, read_model
from gemmarunner.models.gguf_weights import GgufWeights, packing_notes, stored_dtype
from gemmarunner.models.hf_config import read_drafter_config, read_target_config
from gemmarunner.models.linear import packs_half
from gemmarunner.models.lora import AdaptedTake, read_adapter
from gemmarunner.models.quantized import check_quantization, is_compressed
from gemmarunner.models.settings import read_settings
from gemmarunner.models.tensor_reader import StoredMatrices, TensorReader
from gemmarunner.models.weights import Progress, Take, under
from gemmarunner.native.library import library

Config = TypeVar("Config")


class Opened(NamedTuple, Generic[Config]):
    """A checkpoint while its tensors are taken: what a model is built from."""

    config: Config
    take: Take
    device: torch.device
    dtype: torch.dtype


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
    know of how weights are kept. Other arguments and errors of `loader.load_target`; `take` raises
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
    with TensorReader(checkpoint, prefix, device, dtype, progress) as reader:
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
    with TensorReader(checkpoint, "", device, dtype, progress) as reader:
        take = _plain_weights(settings, checkpoint, "", reader, notes, fused=fused)
        yield Opened(config, take, reader.device, reader.dtype)


def _plain_weights(
    settings: Mapping[str, object],
    checkpoint: Checkpoint,
    prefix: str,
    reader: TensorReader,
    notes: list[str] | None,
    *,
    fused: bool,
) -> Take:
    """The tensors below `prefix`, whatever they are compressed as."""
    take = under(reader.take, prefix) if prefix else reader.take
    if not is_compressed(settings):
        widens = not fused and reader.device.type == "cpu" and library() is not None
        return StoredMatrices(take) if widens and reader.dtype is torch.float32 else take
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
        keep_experts = keep_packed and not fused  # whose kernels want experts of their own packing
        notes += packing_notes(model, keep_packed=keep_packed, keep_experts=keep_experts)
    return GgufWeights(
        model,
        torch.device(device),
        runs_in,
        progress,
        is_drafter=heads is None,
        heads=heads or (),
        keep_packed=keep_packed,
    )
