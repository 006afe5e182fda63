"""Writes a pair as GGUF files: the target as FILE.gguf, its drafter beside it as mtp-FILE.gguf.

Matrices keep the type they have; vectors become F32, as llama.cpp wants them. A drafter's clusters
are left out: llama.cpp's own converter does so, and llama-server refuses a file that has them, so
that all of its vocabulary is scored. What is GGUF already is copied as it is.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from torch import Tensor

from gemmad.api.errors import BadRequest
from gemmarunner.export_merge import merge_parts
from gemmarunner.export_metadata import add_drafter_shape, add_target_shape, add_text
from gemmarunner.files import Files, read_format, read_json, read_tokenizer
from gemmarunner.models.checkpoint import Checkpoint, text_prefix
from gemmarunner.models.config import DrafterConfig, TargetConfig
from gemmarunner.models.gguf_config import DRAFTERS, TARGETS
from gemmarunner.models.gguf_file import is_gguf
from gemmarunner.models.gguf_names import ROPE_FREQS, checkpoint_names, gguf_names
from gemmarunner.models.hf_config import read_drafter_config, read_target_config
from gemmarunner.models.quantized import is_compressed
from gemmarunner.models.settings import read_settings
from gemmarunner.models.weights import Progress

CLUSTERS_NOTE = (
    "The drafter's clusters are left out, because llama.cpp loads no file that has them: it drafts "
    "the same, but scores all of the vocabulary for it."
)
_TYPES = {
    torch.float32: GGMLQuantizationType.F32,
    torch.float16: GGMLQuantizationType.F16,
    torch.bfloat16: GGMLQuantizationType.BF16,
}
_OWN_KV = ("self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.k_norm.weight")
_ALWAYS_F32 = ("router.proj.weight",)
_STANDS_STILL = 1e30


class _Source(NamedTuple):
    """One model of a pair, to be written."""

    checkpoint: Checkpoint
    prefix: str
    config: TargetConfig | DrafterConfig


def write_target(files: Files, path: Path, name: str, progress: Progress) -> str | None:
    """The target of `files` is in the GGUF file `path`; returns what a person should know of it.

    Raises:
        LoadFailed: its files are damaged.
        BadRequest: it cannot be written as GGUF.
    """
    if is_gguf(files):
        _copy(files, path, progress)
        return None
    settings = read_settings(files, "config.json")
    _refuse_compressed(settings)
    generation = read_json(files, "generation_config.json")
    checkpoint, config = Checkpoint(files), read_target_config(settings, generation or None)
    writer = _writer(path, TARGETS[0], name)
    add_target_shape(writer, config)
    add_text(writer, read_tokenizer(files), read_format(files), generation)
    _write(writer, _Source(checkpoint, text_prefix(checkpoint), config), progress)
    return None


def write_drafter(
    files: Files, target: Files, path: Path, name: str, progress: Progress
) -> str | None:
    """As `write_target`, for a drafter, which gets its target's tokenizer."""
    if is_gguf(files):
        _copy(files, path, progress)
        return None
    settings = read_settings(files, "config.json")
    _refuse_compressed(settings)
    config = read_drafter_config(settings)
    writer = _writer(path, DRAFTERS[0], f"{name} assistant")
    add_drafter_shape(writer, config)
    add_text(writer, read_tokenizer(target), read_format(target), {})
    _write(writer, _Source(Checkpoint(files), "", config), progress)
    return None if config.centroid is None else CLUSTERS_NOTE


def _refuse_compressed(settings: Any) -> None:
    if is_compressed(settings):
        raise BadRequest(
            "A model of compressed tensors cannot be written as GGUF.",
            fix="Export it to a directory, or export the 16-bit model or its -gguf release.",
        )


def _writer(path: Path, architecture: str, name: str) -> GGUFWriter:
    writer = GGUFWriter(path, architecture)
    writer.add_type("model")
    writer.add_name(name)
    return writer


def _write(writer: GGUFWriter, source: _Source, progress: Progress) -> None:
    """All tensors follow the metadata; each is read when it is written."""
    names = [(name, next(gguf_names(name))) for name in _names(source)]
    config = source.config
    types = {source.checkpoint.dtype(source.prefix + name) for name, _ in names[:1]}
    kind = {torch.float32: LlamaFileType.ALL_F32, torch.float16: LlamaFileType.MOSTLY_F16}
    writer.add_file_type(kind.get(types.pop(), LlamaFileType.MOSTLY_BF16))
    freqs = _rope_freqs(config)
    writer.add_tensor_info(ROPE_FREQS, freqs.shape, freqs.dtype, freqs.nbytes)
    total = 0
    for name, called in names:
        tensor = _stored(source, name)
        total += tensor.nbytes
        row = (*tensor.shape[:-1], tensor.shape[-1] * tensor.itemsize)
        if tensor.dtype in _TYPES:
            raw = _TYPES[tensor.dtype]
            writer.add_tensor_info(called, row, np.dtype(np.uint8), tensor.nbytes, raw)
        else:
            writer.add_tensor_info(called, tensor.shape, np.dtype(np.int32), tensor.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_tensor_data(freqs)
    done = 0
    for name, _ in names:
        tensor = _stored(source, name)
        writer.write_tensor_data(tensor.contiguous().view(-1).view(torch.uint8).numpy())
        done += tensor.nbytes
        progress(done, total)
    writer.close()


def _names(source: _Source) -> Iterator[str]:
    """The text model's tensors that are there and that somebody reads."""
    is_drafter = isinstance(source.config, DrafterConfig)
    present = set(source.checkpoint.names)
    layers = source.config.layers
    for name in checkpoint_names(is_drafter, len(layers)):
        if name.startswith("masked_embedding."):
            continue
        unread = name.endswith(_OWN_KV) and layers[_layer(name)].donor is not None
        if source.prefix + name in present and not unread:
            yield name


def _layer(name: str) -> int:
    return int(name.split("layers.")[1].split(".")[0])


def _stored(source: _Source, name: str) -> Tensor:
    """A tensor as it is written."""
    full = source.prefix + name
    tensor = source.checkpoint.read(full, source.checkpoint.shape(full))
    if not tensor.is_floating_point():
        return tensor.to(torch.int32)
    if tensor.ndim < 2 or tensor.dtype not in _TYPES or name.endswith(_ALWAYS_F32):
        return tensor.float()
    return tensor


def _rope_freqs(config: TargetConfig | DrafterConfig) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What llama.cpp divides each pair's angle by in full layers: 1, or so much that it is 0."""
    full = next(layer for layer in config.layers if layer.kind == "full")
    freqs = np.full(full.head_dim // 2, _STANDS_STILL, dtype=np.float32)
    freqs[: full.rope.rotated_pairs] = 1.0
    return freqs


def _copy(files: Files, path: Path, progress: Progress) -> None:
    parts = sorted(name for name in files if name.endswith(".gguf"))
    if len(parts) > 1:
        merge_parts(files, path, progress)
        return
    size = files[parts[0]].stat().st_size
    shutil.copyfile(files[parts[0]], path)
    progress(size, size)
