"""A model's settings under one set of keys, whichever format they come from; in range or refused.

The keys are those of GGUF without the architecture, which are also those of Ollama's `model_info`.
"""

import math
from array import array
from collections.abc import Mapping
from typing import Any

from gemmad.formats.gguf import Value
from gemmad.formats.limits import BadFile, shown

Settings = dict[str, int | float | bool | list[int]]

HF_KEYS = {  # key of config.json's text part -> ours
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length_swa",
    "global_head_dim": "attention.key_length",
    "sliding_window": "attention.sliding_window",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "num_kv_shared_layers": "attention.shared_kv_layers",
    "hidden_size_per_layer_input": "embedding_length_per_layer_input",
    "final_logit_softcapping": "final_logit_softcapping",
    "num_experts": "expert_count",
    "vocab_size": "vocab_size",
}
_PER_LAYER = ("intermediate_size",)  # may be a list
_RANGES = {  # of a number, or of each of a list; a decoder would allocate what they say
    "block_count": (1, 1_000),
    "context_length": (1, 1 << 24),
    "embedding_length": (1, 1 << 17),
    "feed_forward_length": (0, 1 << 20),
    "attention.head_count": (1, 1 << 10),
    "attention.head_count_kv": (0, 1 << 10),
    "attention.key_length": (1, 1 << 14),
    "attention.key_length_swa": (1, 1 << 14),
    "attention.sliding_window": (0, 1 << 24),
    "attention.shared_kv_layers": (0, 1_000),
    "embedding_length_per_layer_input": (0, 1 << 17),
    "embedding_length_out": (1, 1 << 17),
    "expert_count": (0, 1 << 12),
    "vocab_size": (1, 1 << 24),
}
REQUIRED = ("block_count", "embedding_length")
_MAX_LIST = 1_000  # a number for each layer


def hf_settings(text: Mapping[str, Any]) -> Settings:
    """The settings in the text part of a config.json.

    Raises:
        BadFile: one is missing or out of range; names it.
    """
    found: Settings = {}
    for key, ours in HF_KEYS.items():
        value = text.get(key)
        if value is not None and _number(value):
            found[ours] = value
        elif value is not None and key not in _PER_LAYER:
            raise BadFile(f"its {key} is {shown(str(value)[:40])!r}, and no number")
    return _checked(found, {ours: key for key, ours in HF_KEYS.items()})


def gguf_settings(metadata: Mapping[str, Value], architecture: str) -> Settings:
    """The settings in the metadata of a GGUF file, those of its architecture.

    Raises:
        BadFile: one is missing or out of range; names it.
    """
    prefix = f"{architecture}."
    found: Settings = {}
    for key, value in metadata.items():
        if key.startswith(prefix) and (plain := _plain(value)) is not None:
            found[key.removeprefix(prefix)] = plain
    return _checked(found, {name: f"{prefix}{name}" for name in _RANGES})


def _checked(found: Settings, names: Mapping[str, str]) -> Settings:
    for key in REQUIRED:
        if key not in found:
            raise BadFile(f"its {names[key]} is missing")
    for key, (least, most) in _RANGES.items():
        value = found.get(key, least)
        every = value if isinstance(value, list) else [value]
        if not all(type(item) is int and least <= item <= most for item in every):
            text = shown(str(value)[:40])
            raise BadFile(f"its {names[key]} is {text}, and not from {least} to {most}")
    return found


def _plain(value: Value) -> int | float | bool | list[int] | None:
    """A setting's value as JSON can say it; None: no setting."""
    if isinstance(value, array):
        short = value.typecode not in "fd" and len(value) <= _MAX_LIST
        return value.tolist() if short else None
    if isinstance(value, list):
        flags = [int(item) for item in value if isinstance(item, bool)]
        return flags if len(flags) == len(value) <= _MAX_LIST else None
    return value if isinstance(value, bool | int | float) and _number(value) else None


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1 << 62
