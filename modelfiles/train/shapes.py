"""The sizes of the pair and the Hugging Face configurations that state them."""

from dataclasses import dataclass
from typing import Any, Literal

LayerType = Literal["sliding_attention", "full_attention"]
SLIDING: LayerType = "sliding_attention"
FULL: LayerType = "full_attention"

PAD, EOS, BOS = 0, 1, 2
TOOL_RESPONSE, TURN_END = 50, 106
STOP_IDS = (EOS, TURN_END, TOOL_RESPONSE)
TEMPERATURE, TOP_K, TOP_P = 1.0, 64, 0.95


@dataclass(frozen=True, slots=True)
class TargetShape:
    """The sizes of a Gemma 4 target; the last half of its layers share earlier keys and values."""

    vocab: int = 8192
    hidden: int = 320
    intermediate: int = 512
    layer_types: tuple[LayerType, ...] = (SLIDING, SLIDING, SLIDING, SLIDING, FULL) * 2
    shared_layers: int = 5
    heads: int = 4
    kv_heads: int = 1
    sliding_dim: int = 64
    full_dim: int = 128
    window: int = 256
    per_layer: int = 16
    softcap: float = 30.0
    context: int = 4096

    @property
    def own_layers(self) -> int:
        """How many layers have keys and values of their own."""
        return len(self.layer_types) - self.shared_layers

    def head_dim(self, kind: LayerType) -> int:
        """Return the width of a head in layers of that kind."""
        return self.full_dim if kind == FULL else self.sliding_dim

    def donor(self, kind: LayerType) -> int:
        """Return the layer whose keys and values the shared layers of that kind read."""
        own = self.layer_types[: self.own_layers]
        return len(own) - 1 - own[::-1].index(kind)


@dataclass(frozen=True, slots=True)
class DrafterShape:
    """The sizes of a drafter, which reads the keys and values of its target."""

    hidden: int = 128
    intermediate: int = 256
    layer_types: tuple[LayerType, ...] = (SLIDING, SLIDING, SLIDING, FULL)
    clusters: int = 128
    top_clusters: int = 16


NANO = TargetShape()
NANO_DRAFTER = DrafterShape()
TINY = TargetShape(
    hidden=32,
    intermediate=48,
    layer_types=(SLIDING, FULL, SLIDING, FULL),
    shared_layers=2,
    heads=2,
    sliding_dim=16,
    full_dim=32,
    window=64,
    per_layer=4,
)
TINY_DRAFTER = DrafterShape(hidden=16, intermediate=24, layer_types=(SLIDING, FULL))

_ROPE = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "rope_theta": 1_000_000.0, "partial_rotary_factor": 0.25},
}


def _text_config(shape: TargetShape) -> dict[str, Any]:
    """Return what the target's and the drafter's text configurations have in common."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": False,
        "bos_token_id": BOS,
        "dtype": "bfloat16",
        "enable_moe_block": False,
        "eos_token_id": EOS,
        "global_head_dim": shape.full_dim,
        "head_dim": shape.sliding_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "max_position_embeddings": shape.context,
        "model_type": "gemma4_text",
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "pad_token_id": PAD,
        "rms_norm_eps": 1e-6,
        "rope_parameters": _ROPE,
        "sliding_window": shape.window,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": shape.vocab,
    }


def target_config(shape: TargetShape) -> dict[str, Any]:
    """Return the target's `config.json`."""
    return _text_config(shape) | {
        "architectures": ["Gemma4ForCausalLM"],
        "final_logit_softcapping": shape.softcap,
        "hidden_size": shape.hidden,
        "hidden_size_per_layer_input": shape.per_layer,
        "intermediate_size": shape.intermediate,
        "layer_types": list(shape.layer_types),
        "num_hidden_layers": len(shape.layer_types),
        "num_kv_shared_layers": shape.shared_layers,
        "use_double_wide_mlp": True,
        "vocab_size_per_layer_input": shape.vocab,
    }


def drafter_config(shape: DrafterShape, target: TargetShape) -> dict[str, Any]:
    """Return the drafter's `config.json`."""
    text = _text_config(target) | {
        "final_logit_softcapping": None,
        "hidden_size": shape.hidden,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": shape.intermediate,
        "layer_types": list(shape.layer_types),
        "num_hidden_layers": len(shape.layer_types),
        "num_kv_shared_layers": len(shape.layer_types),
        "use_double_wide_mlp": False,
        "vocab_size_per_layer_input": 0,
    }
    return {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "backbone_hidden_size": target.hidden,
        "centroid_intermediate_top_k": shape.top_clusters,
        "dtype": "bfloat16",
        "model_type": "gemma4_assistant",
        "num_centroids": shape.clusters,
        "text_config": text,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": True,
    }


def generation_config() -> dict[str, Any]:
    """Return the target's `generation_config.json`: Gemma 4's own defaults and stops."""
    return {
        "bos_token_id": BOS,
        "do_sample": True,
        "eos_token_id": list(STOP_IDS),
        "pad_token_id": PAD,
        "temperature": TEMPERATURE,
        "top_k": TOP_K,
        "top_p": TOP_P,
    }
