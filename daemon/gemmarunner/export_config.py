"""Says what a model of GGUF files is in the words of Hugging Face's `config.json`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gemmad.api.errors import BadRequest
from gemmarunner.models.config import (
    ConfigError,
    DrafterConfig,
    LayerConfig,
    LayerKind,
    TargetConfig,
)
from gemmarunner.models.hf_config import read_drafter_config, read_target_config

Settings = dict[str, Any]
_KINDS: dict[LayerKind, str] = {"sliding": "sliding_attention", "full": "full_attention"}


def target_settings(config: TargetConfig, generation: Mapping[str, Any], dtype: str) -> Settings:
    """`config.json` of a target: read again, with that generation config, it is `config`.

    Raises:
        BadRequest: Hugging Face's format has no words for a model of this shape.
    """
    made = _text(config, config.first_shared, dtype) | {
        "architectures": ["Gemma4ForCausalLM"],
        "pad_token_id": config.pad_id,
        "final_logit_softcapping": config.softcap,
        "hidden_size_per_layer_input": config.ple_dim,
        "vocab_size_per_layer_input": config.vocab_size if config.ple_dim else 0,
        "use_bidirectional_attention": "vision" if config.bidirectional_images else None,
        "enable_moe_block": config.moe is not None,
    }
    if config.moe is not None:
        made["num_experts"] = config.moe.experts
        made["top_k_experts"] = config.moe.top_k
        made["moe_intermediate_size"] = config.moe.intermediate
    _check(read_target_config, made, generation, config)
    return made


def drafter_settings(config: DrafterConfig, dtype: str) -> Settings:
    """`config.json` of a drafter; as `target_settings`."""
    text = _text(config, len(config.layers), dtype) | {
        "final_logit_softcapping": None,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 0,
        "enable_moe_block": False,
        "num_kv_shared_layers": len(config.layers),
    }
    made = {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "model_type": "gemma4_assistant",
        "backbone_hidden_size": config.backbone,
        "use_ordered_embeddings": config.centroid is not None,
        "dtype": dtype,
        "tie_word_embeddings": True,
        "text_config": text,
    }
    if config.centroid is not None:
        made["num_centroids"] = config.centroid.centroids
        made["centroid_intermediate_top_k"] = config.centroid.top_k
    _check(lambda data, _: read_drafter_config(data), made, {}, config)
    return made


def _text(config: TargetConfig | DrafterConfig, owners: int, dtype: str) -> Settings:
    """What targets and drafters have in common; the first `owners` layers have K/V."""
    layers = config.layers
    full = next(layer for layer in layers if layer.kind == "full")
    sliding = next((layer for layer in layers if layer.kind == "sliding"), full)
    k_eq_v = any(layer.k_eq_v for layer in layers)
    if not k_eq_v and isinstance(config, DrafterConfig):  # it has no keys by which to tell
        k_eq_v = full.kv_heads != sliding.kv_heads
    return {
        "model_type": "gemma4_text",
        "dtype": dtype,
        "attention_bias": False,
        "attention_k_eq_v": k_eq_v,
        "global_head_dim": full.head_dim,
        "head_dim": sliding.head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": config.hidden,
        "intermediate_size": layers[0].intermediate,
        "layer_types": [_KINDS[layer.kind] for layer in layers],
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.heads,
        "num_global_key_value_heads": full.kv_heads if k_eq_v else None,
        "num_hidden_layers": len(layers),
        "num_key_value_heads": sliding.kv_heads,
        "num_kv_shared_layers": len(layers) - owners,
        "rms_norm_eps": config.eps,
        "rope_parameters": {
            "full_attention": {
                "partial_rotary_factor": 2 * full.rope.rotated_pairs / full.head_dim,
                "rope_theta": full.rope.theta,
                "rope_type": "proportional",
            },
            "sliding_attention": {"rope_theta": sliding.rope.theta, "rope_type": "default"},
        },
        "sliding_window": config.window,
        "tie_word_embeddings": True,
        "use_double_wide_mlp": layers[-1].intermediate != layers[0].intermediate,
        "vocab_size": config.vocab_size,
    }


def _check(read: Any, made: Settings, generation: Mapping[str, Any], wanted: Any) -> None:
    """What was made says what was meant."""
    try:
        same = _compared(read(made, generation)) == _compared(wanted)
    except ConfigError:
        same = False
    if not same:
        raise BadRequest(
            "The layers of this GGUF model differ in ways that Hugging Face's config.json cannot "
            "say.",
            fix="Export it as FILE.gguf.",
        )


def _compared(config: TargetConfig | DrafterConfig) -> TargetConfig | DrafterConfig:
    """The configuration but for what says nothing: where values come from, in a layer without."""
    drafter = isinstance(config, DrafterConfig)

    def plain(layer: LayerConfig) -> LayerConfig:
        return replace(layer, k_eq_v=False) if drafter or layer.donor is not None else layer

    return replace(config, layers=tuple(plain(layer) for layer in config.layers))
