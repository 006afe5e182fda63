"""Writes tiny checkpoints as GGUF files, in every layout and type that other writers use.

What cannot be packed (rows of another length, vectors, per-layer gates of 8 columns) stays F32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file

from gemmarunner.export_metadata import add_drafter_shape, add_target_shape
from gemmarunner.models.config import DrafterConfig
from gemmarunner.models.gguf_config import CENTROID_TOP_K
from gemmarunner.models.gguf_names import ROPE_FREQS, gguf_names
from gemmarunner.models.hf_config import read_drafter_config, read_target_config
from gemmarunner.models.settings import read_settings
from tests.fakes.tiny_models import checkpoint_files

Arrays = dict[str, np.ndarray[Any, Any]]  # of bytes where they are packed


@dataclass(frozen=True)
class Writing:
    """How a file is written."""

    kind: Kind = Kind.F32  # of matrices
    kinds: Mapping[str, Kind] = field(default_factory=dict)  # by ending of a name, before `kind`
    fused_qkv: bool = False
    experts_apart: bool = False
    centroids: bool = True
    architecture: str | None = None
    parts: int = 1
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # tensors nobody reads


def write_gguf(checkpoint: Path, path: Path, how: Writing = Writing()) -> dict[str, Path]:
    """The tiny checkpoint of a directory as GGUF; returns its files by name."""
    files = checkpoint_files(checkpoint)
    settings = read_settings(files, "config.json")
    is_drafter = "assistant" in str(settings["model_type"])
    config = (read_drafter_config if is_drafter else read_target_config)(settings)
    arrays = _arrays(load_file(files["model.safetensors"]), config, how)
    names = list(arrays)
    found: dict[str, Path] = {}
    for part in range(how.parts):
        name = path if how.parts == 1 else path.with_stem(f"{path.stem}-{part + 1:05d}")
        architecture = how.architecture or ("gemma4-assistant" if is_drafter else "gemma4")
        writer = gguf.GGUFWriter(name, architecture)
        if part == 0:
            (add_drafter_shape if is_drafter else add_target_shape)(writer, config)
            if is_drafter and how.centroids and config.centroid:
                writer.add_uint32(f"{architecture}.{CENTROID_TOP_K}", config.centroid.top_k)
        if how.parts > 1:
            writer.add_uint16("split.no", part)
            writer.add_uint16("split.count", how.parts)
        for tensor in names[part :: how.parts]:
            kind = _kind(tensor, arrays[tensor], how)
            _add(writer, tensor, arrays[tensor], kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        found[name.name] = name
    return found


def packed_bytes(values: np.ndarray[Any, Any], kind: Kind) -> np.ndarray[Any, Any]:
    """`values` [N, K] as blocks; of types that the package cannot make, random ones."""
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        return random_blocks(values.shape[0], values.shape[1], kind)


def random_blocks(rows: int, columns: int, kind: Kind, seed: int = 0) -> np.ndarray[Any, Any]:
    """Blocks of random codes whose scales make weights of ordinary size."""
    weights, nbytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng((seed, rows, columns))
    blocks = rng.integers(0, 256, (rows * columns // weights, nbytes), dtype=np.uint8)
    scales = rng.uniform(0.5, 1.5, len(blocks)) * columns**-0.5 / _LARGEST.get(kind, 8)
    for at in _HALF_SCALES.get(kind, (0,)):
        halves = scales.astype(np.float16).view(np.uint8).reshape(-1, 2)
        blocks[:, at : at + 2] = halves
    return blocks.reshape(rows, -1)


# Where a block has float16 numbers, and how large its weights are for a scale of 1.
_HALF_SCALES = {
    Kind.Q4_1: (0, 2),
    Kind.Q5_1: (0, 2),
    Kind.Q2_K: (80, 82),
    Kind.Q3_K: (108,),
    Kind.Q4_K: (0, 2),
    Kind.Q5_K: (0, 2),
    Kind.Q6_K: (208,),
    Kind.TQ1_0: (52,),
    Kind.TQ2_0: (64,),
    Kind.IQ1_M: (),
    Kind.MXFP4: (),
    Kind.NVFP4: (),
}
_LARGEST = {Kind.Q4_K: 400, Kind.Q5_K: 800, Kind.Q6_K: 2000, Kind.Q2_K: 40, Kind.Q3_K: 100}


def _arrays(tensors: Mapping[str, torch.Tensor], config: Any, how: Writing) -> Arrays:
    is_drafter = isinstance(config, DrafterConfig)
    made: Arrays = {}
    for full, tensor in tensors.items():
        name = full if is_drafter else full.removeprefix("model.")
        if name.startswith("masked_embedding") and not how.centroids:
            continue
        values = tensor.float().numpy() if tensor.is_floating_point() else tensor.int().numpy()
        made[next(gguf_names(name))] = values
    full_layer = next(layer for layer in config.layers if layer.kind == "full")
    freqs = np.full(full_layer.head_dim // 2, 1e30, np.float32)
    freqs[: full_layer.rope.rotated_pairs] = 1
    made[ROPE_FREQS] = freqs
    for index in range(len(config.layers)):
        _rearrange(made, f"blk.{index}.", how)
    made |= {name: np.ones(shape, np.float32) for name, shape in how.extra.items()}
    return made


def _rearrange(made: Arrays, prefix: str, how: Writing) -> None:
    heads = [f"{prefix}attn_{part}.weight" for part in "qkv"]
    if how.fused_qkv and all(name in made for name in heads):
        made[f"{prefix}attn_qkv.weight"] = np.concatenate([made.pop(name) for name in heads])
    experts = f"{prefix}ffn_gate_up_exps.weight"
    if how.experts_apart and experts in made:
        gate, up = np.split(made.pop(experts), 2, axis=1)
        made[f"{prefix}ffn_gate_exps.weight"] = np.ascontiguousarray(gate)
        made[f"{prefix}ffn_up_exps.weight"] = np.ascontiguousarray(up)


def _kind(name: str, values: np.ndarray[Any, Any], how: Writing) -> Kind:
    kind = next((kind for end, kind in how.kinds.items() if name.endswith(end)), how.kind)
    fits = values.ndim > 1 and values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
    return kind if fits else Kind.F32


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray[Any, Any], kind: Kind) -> None:
    if kind is Kind.F32:
        writer.add_tensor(name, values)
    elif kind is Kind.F16:
        writer.add_tensor(name, values.astype(np.float16))
    else:
        flat = packed_bytes(values.reshape(-1, values.shape[-1]), kind)
        writer.add_tensor(name, flat.reshape(*values.shape[:-1], -1), raw_dtype=kind)
