"""Reads a Gemma 4 `config.json` and generation settings into what lists and `show` tell; pure."""

from collections.abc import Mapping
from types import UnionType
from typing import Any

from gemmad.core import Details
from gemmad.sources.safetensors_header import WeightFacts, size_label

# config.json key -> key of Ollama's model_info, after the family
_INFO_KEYS = {
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
_SAMPLING: dict[str, type[int] | UnionType] = {
    "temperature": int | float,
    "top_k": int,
    "top_p": int | float,
    "min_p": int | float,
}


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text part of a config: its `text_config`, or the config itself when it is one."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def details(config: Mapping[str, Any], weights: WeightFacts, template: str) -> Details:
    """What lists show of a target."""
    text = text_config(config)
    return Details(
        family="gemma4",
        parameter_size=size_label(weights.parameters),
        quantization_level=weights.dtype,
        context_length=_positive(text, "max_position_embeddings"),
        embedding_length=_positive(text, "hidden_size"),
        capabilities=capabilities(template),
    )


def capabilities(template: str) -> tuple[str, ...]:
    """What the chat template can write, by the control tokens it holds."""
    found = ["completion"]
    if "<|tool>" in template or "<|tool_call>" in template:
        found.append("tools")
    if "<|think|>" in template:
        found.append("thinking")
    return tuple(found)


def model_info(config: Mapping[str, Any], weights: WeightFacts, name: str) -> dict[str, object]:
    """Architecture facts under the keys Ollama's clients know."""
    text = text_config(config)
    info: dict[str, object] = {
        "general.architecture": "gemma4",
        "general.basename": name,
        "general.parameter_count": weights.parameters,
    }
    for key, label in _INFO_KEYS.items():
        if isinstance(text.get(key), int | float):
            info[f"gemma4.{label}"] = text[key]
    return info


def sampling_defaults(generation: Mapping[str, Any]) -> dict[str, int | float | str | list[str]]:
    """The sampling parameters a generation config sets."""
    found: dict[str, int | float | str | list[str]] = {}
    for key, kind in _SAMPLING.items():
        value: Any = generation.get(key)
        if isinstance(value, kind) and not isinstance(value, bool):
            found[key] = value
    return found


def _positive(text: Mapping[str, Any], key: str) -> int:
    value = text.get(key)
    return value if isinstance(value, int) and value > 0 else 0
