"""The published shapes of Gemma 4 pairs with synthetic weights, for benchmarks without a download.

Configurations are dictionaries as `config.json` holds them, so that transformers can be built from
the same. Weights are random, of ordinary size, and made on the device; big ones repeat one block of
random numbers, which costs a memory copy instead of a random number each.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemmarunner.models.config import DrafterConfig, TargetConfig
from gemmarunner.models.hf_config import read_drafter_config, read_target_config
from gemmarunner.models.weights import Take

NANO = Path(__file__).parents[2] / "modelfiles/gemmamodelfiles/nano"
SHAPES = ("nano", "e2b", "e4b", "12b", "26b", "31b")
VOCAB = 262_144
_BLOCK = 2**24  # random numbers before they repeat

_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.25,
        "rope_theta": 1e6,
    },
}
_COMMON: dict[str, Any] = {
    "model_type": "gemma4_text",
    "vocab_size": VOCAB,
    "head_dim": 256,
    "global_head_dim": 512,
    "rms_norm_eps": 1e-6,
    "rope_parameters": _ROPE,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
_TARGETS: dict[str, dict[str, Any]] = {
    "e2b": {
        "hidden_size": 1536, "num_hidden_layers": 35, "full_every": 5, "intermediate_size": 6144,
        "num_attention_heads": 8, "num_key_value_heads": 1, "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True, "sliding_window": 512, "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": VOCAB, "max_position_embeddings": 131_072,
    },
    "e4b": {
        "hidden_size": 2560, "num_hidden_layers": 42, "full_every": 6, "intermediate_size": 10_240,
        "num_attention_heads": 8, "num_key_value_heads": 2, "num_kv_shared_layers": 18,
        "sliding_window": 512, "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": VOCAB, "max_position_embeddings": 131_072,
    },
    "12b": {
        "hidden_size": 3840, "num_hidden_layers": 48, "full_every": 6, "intermediate_size": 15_360,
        "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 1,
        "attention_k_eq_v": True, "sliding_window": 1024, "hidden_size_per_layer_input": 0,
        "max_position_embeddings": 262_144,
    },
    "26b": {
        "hidden_size": 2816, "num_hidden_layers": 30, "full_every": 6, "intermediate_size": 2112,
        "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 2,
        "attention_k_eq_v": True, "sliding_window": 1024, "hidden_size_per_layer_input": 0,
        "max_position_embeddings": 262_144, "enable_moe_block": True, "num_experts": 128,
        "top_k_experts": 8, "moe_intermediate_size": 704,
    },
    "31b": {
        "hidden_size": 5376, "num_hidden_layers": 60, "full_every": 6, "intermediate_size": 21_504,
        "num_attention_heads": 32, "num_key_value_heads": 16, "num_global_key_value_heads": 4,
        "attention_k_eq_v": True, "sliding_window": 1024, "hidden_size_per_layer_input": 0,
        "max_position_embeddings": 262_144,
    },
}  # fmt: skip
_DRAFTERS: dict[str, tuple[int, int, int, bool]] = {  # hidden, intermediate, q heads, centroids
    "e2b": (256, 2048, 4, True),
    "e4b": (256, 2048, 4, True),
    "12b": (1024, 8192, 16, False),
    "26b": (1024, 8192, 16, False),
    "31b": (1024, 8192, 32, False),
}


def target_json(name: str) -> dict[str, Any]:
    """A target's text configuration as `config.json` holds it."""
    if name == "nano":
        data: dict[str, Any] = json.loads((NANO / "target/config.json").read_text())
        return data
    shape = dict(_TARGETS[name])
    every, count = shape.pop("full_every"), shape["num_hidden_layers"]
    kinds = [_kind((index + 1) % every == 0) for index in range(count)]
    return {**_COMMON, "final_logit_softcapping": 30.0, "layer_types": kinds, **shape}


def drafter_json(name: str) -> dict[str, Any]:
    """A drafter's configuration as `config.json` holds it."""
    if name == "nano":
        data: dict[str, Any] = json.loads((NANO / "drafter/config.json").read_text())
        return data
    target = target_json(name)
    hidden, intermediate, heads, ordered = _DRAFTERS[name]
    same = (
        "num_key_value_heads",
        "num_global_key_value_heads",
        "attention_k_eq_v",
        "sliding_window",
        "max_position_embeddings",
    )
    text = {
        **_COMMON,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 4,
        "layer_types": [_kind(index == 3) for index in range(4)],
        "hidden_size_per_layer_input": 0,
        **{key: target[key] for key in same if key in target},
    }
    return {
        "model_type": "gemma4_assistant",
        "text_config": text,
        "backbone_hidden_size": target["hidden_size"],
        "use_ordered_embeddings": ordered,
        "num_centroids": 2048,
        "centroid_intermediate_top_k": 32,
    }


def target_config(name: str) -> TargetConfig:
    """The decoder's facts of a target."""
    return read_target_config(target_json(name))


def drafter_config(name: str) -> DrafterConfig:
    """The decoder's facts of a drafter."""
    return read_drafter_config(drafter_json(name))


class Synthetic:
    """Random tensors by name and shape; counts the bytes that a decoded token reads."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, seed: int = 0, active: float = 1.0
    ) -> None:
        self.read_bytes = 0.0
        self.total_bytes = 0
        self._device, self._dtype = device, dtype
        self._active = active  # share of the experts a token is sent to
        generator = torch.Generator(device).manual_seed(seed)
        self._block = torch.randn(_BLOCK, generator=generator, device=device).to(dtype)
        self._generator = generator
        self._offset = 0

    def take(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        """A `Take`."""
        if name.endswith("token_ordering"):
            return torch.randperm(shape[0], generator=self._generator, device=self._device)
        tensor = self._random(math.prod(shape)).view(shape)
        self._count(name, tensor)
        if name.endswith("norm.weight") or "scale" in name:
            return tensor.mul_(0.1).add_(1.0)
        if name.endswith("layer_scalar"):
            return tensor.mul_(0.0).add_(0.5)
        return tensor.mul_(shape[-1] ** -0.5)

    def _random(self, count: int) -> Tensor:
        out = torch.empty(count, device=self._device, dtype=self._dtype)
        done = 0
        while done < count:
            self._offset = (self._offset + 7_919) % (_BLOCK // 2)  # no two matrices alike
            part = self._block[self._offset : self._offset + count - done]
            out[done : done + part.numel()] = part
            done += part.numel()
        return out

    def _count(self, name: str, tensor: Tensor) -> None:
        self.total_bytes += tensor.nbytes
        if name.endswith(("embed_tokens_per_layer.weight",)):
            return  # one row
        self.read_bytes += tensor.nbytes * (self._active if ".experts." in name else 1.0)


def synthetic_target(name: str, device: torch.device, dtype: torch.dtype) -> Synthetic:
    """A target's tensors."""
    moe = target_config(name).moe
    return Synthetic(device, dtype, 0, moe.top_k / moe.experts if moe else 1.0)


def take(name: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Take:
    """Random tensors for a target (or, with another seed, its drafter)."""
    return Synthetic(device, dtype, seed).take


def _kind(full: bool) -> str:
    return "full_attention" if full else "sliding_attention"
