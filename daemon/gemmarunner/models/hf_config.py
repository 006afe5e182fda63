"""Reads Hugging Face `config.json` of Gemma 4 targets and drafters, in its old and new spellings.

Old: `global_head_dim`, `num_global_key_value_heads` (honoured only with `attention_k_eq_v`).
New: `per_layer_config`, overrides by layer index or by layer type.
The text settings are either at the top or under `text_config`.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from gemmarunner.models import gemma3
from gemmarunner.models.config import (
    CentroidConfig,
    ConfigError,
    DrafterConfig,
    LayerConfig,
    LayerKind,
    MoEConfig,
    RopeConfig,
    TargetConfig,
)

Json = Mapping[str, object]
_T = TypeVar("_T")

_KINDS: dict[str, LayerKind] = {"sliding_attention": "sliding", "full_attention": "full"}
_TYPE_OF_KIND = {kind: name for name, kind in _KINDS.items()}
_TARGETS = ("gemma4", "gemma4_unified")
_TEXTS = ("gemma4_text", "gemma4_unified_text")
_DRAFTERS = ("gemma4_assistant", "gemma4_unified_assistant")
_PATTERN = 6  # where no layer_types are given, every sixth layer is full
_DEFAULT_ROPE: dict[LayerKind, Json] = {
    "sliding": {"rope_type": "default", "rope_theta": 10_000.0},
    "full": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
}
# What every Gemma 4 has in common; another value would need another decoder.
_FIXED: Json = {
    "attention_bias": False,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}


def read_target_config(data: Json, generation: Json | None = None) -> TargetConfig:
    """The target that `config.json` (and `generation_config.json`, where given) describes.

    Raises:
        ConfigError: naming the key and the value that can't be read or isn't supported.
    """
    if data.get("model_type") in gemma3.MODEL_TYPES:
        raise gemma3.refused()
    text = _text_of(data, _TARGETS)
    return TargetConfig(
        vocab_size=_get(text, "vocab_size", int),
        hidden=_get(text, "hidden_size", int),
        heads=_get(text, "num_attention_heads", int),
        layers=_layers(text),
        window=_window(text),
        eps=_eps(text),
        softcap=_get(text, "final_logit_softcapping", float, None),
        ple_dim=_ple_dim(text),
        moe=_moe(text),
        max_positions=_get(text, "max_position_embeddings", int, 131_072),
        pad_id=_get(text, "pad_token_id", int, 0) or 0,
        suppress_tokens=_suppressed(data if generation is None else generation),
        bidirectional_images=_bidirectional_images(text),
    )


def read_drafter_config(data: Json) -> DrafterConfig:
    """The drafter that an assistant's `config.json` describes.

    Raises:
        ConfigError: naming the key and the value that can't be read or isn't supported.
    """
    text = _text_of(data, _DRAFTERS)
    for forbidden in ("hidden_size_per_layer_input", "enable_moe_block", "use_double_wide_mlp"):
        if text.get(forbidden):
            raise _refused(forbidden, text[forbidden], "0 or false in a drafter")
    ordered = bool(data.get("use_ordered_embeddings", False))
    return DrafterConfig(
        vocab_size=_get(text, "vocab_size", int),
        hidden=_get(text, "hidden_size", int),
        heads=_get(text, "num_attention_heads", int),
        layers=_layers({**text, "num_kv_shared_layers": 0}),
        window=_window(text),
        eps=_eps(text),
        backbone=_get(data, "backbone_hidden_size", int),
        centroid=_centroid(data, _get(text, "vocab_size", int)) if ordered else None,
        max_positions=_get(text, "max_position_embeddings", int, 131_072),
    )


def _text_of(data: Json, wrappers: tuple[str, ...]) -> Json:
    """The mapping that holds the text settings."""
    model_type = data.get("model_type")
    nested = data.get("text_config")
    if model_type in wrappers:
        if not isinstance(nested, Mapping):
            raise _refused("text_config", nested, "an object")
        text = cast(Json, nested)
    elif model_type in _TEXTS and "gemma4" in wrappers:
        text = data
    else:
        raise _refused("model_type", model_type, " or ".join(wrappers))
    for key, only in _FIXED.items():
        if text.get(key, only) != only:
            raise _refused(key, text[key], repr(only))
    return text


def _layers(text: Json) -> tuple[LayerConfig, ...]:
    kinds = _kinds(text)
    first_shared = len(kinds) - _get(text, "num_kv_shared_layers", int, 0)
    if not 0 < first_shared <= len(kinds):
        raise _refused("num_kv_shared_layers", text["num_kv_shared_layers"], "fewer than layers")
    wide = bool(text.get("use_double_wide_mlp", False))
    base = _get(text, "intermediate_size", int)
    layers = []
    for index, kind in enumerate(kinds):
        shared = index >= first_shared
        head_dim, kv_heads = _head_shape(text, index, kind)
        layers.append(
            LayerConfig(
                kind=kind,
                head_dim=head_dim,
                kv_heads=kv_heads,
                donor=_donor(kinds, first_shared, kind) if shared else None,
                intermediate=base * 2 if wide and shared else base,
                k_eq_v=bool(text.get("attention_k_eq_v", False)) and kind == "full",
                rope=_rope(text, kind, head_dim),
            )
        )
    return tuple(layers)


def _kinds(text: Json) -> list[LayerKind]:
    count = _get(text, "num_hidden_layers", int)
    names = text.get("layer_types")
    if names is None:
        kinds: list[LayerKind] = [
            "full" if (i + 1) % _PATTERN == 0 else "sliding" for i in range(count)
        ]
        kinds[-1] = "full"
        return kinds
    known = isinstance(names, list) and all(name in _KINDS for name in names)
    if not known or len(cast(list[str], names)) != count:
        raise _refused("layer_types", names, f"{count} of {', '.join(_KINDS)}")
    return [_KINDS[name] for name in cast(list[str], names)]


def _donor(kinds: list[LayerKind], first_shared: int, kind: LayerKind) -> int:
    owners = [index for index in range(first_shared) if kinds[index] == kind]
    if not owners:
        raise _refused(
            "num_kv_shared_layers", len(kinds) - first_shared, f"a {kind} layer with K/V"
        )
    return owners[-1]


def _head_shape(text: Json, index: int, kind: LayerKind) -> tuple[int, int]:
    """Head dim and K/V heads of a layer."""
    shape = {
        "head_dim": _get(text, "head_dim", int, 256),
        "num_key_value_heads": _get(text, "num_key_value_heads", int),
    }
    if "per_layer_config" in text:
        for key, value in _overrides(text["per_layer_config"], index, kind).items():
            if key not in shape or not isinstance(value, int):
                raise _refused(f"per_layer_config[{index}]", {key: value}, " or ".join(shape))
            shape[key] = value
    elif kind == "full":
        shape["head_dim"] = _get(text, "global_head_dim", int, None) or 512
        if text.get("attention_k_eq_v"):
            heads = _get(text, "num_global_key_value_heads", int, None)
            shape["num_key_value_heads"] = heads or shape["num_key_value_heads"]
    return shape["head_dim"], shape["num_key_value_heads"]


def _overrides(by_layer: object, index: int, kind: LayerKind) -> Json:
    """What `per_layer_config` says of one layer: a list, or a mapping by index or by type."""
    if by_layer is None:
        return {}
    if isinstance(by_layer, list):
        found = by_layer[index] if index < len(by_layer) else {}
    elif isinstance(by_layer, Mapping):
        keys: tuple[Any, ...] = (str(index), index, _TYPE_OF_KIND[kind])
        found = next((by_layer[key] for key in keys if key in by_layer), {})
    else:
        raise _refused("per_layer_config", by_layer, "an object or a list")
    if not isinstance(found, Mapping | None):
        raise _refused(f"per_layer_config[{index}]", found, "an object")
    return found or {}


def _rope(text: Json, kind: LayerKind, head_dim: int) -> RopeConfig:
    name = _TYPE_OF_KIND[kind]
    every = text.get("rope_parameters") or {}
    given = every.get(name) if isinstance(every, Mapping) else every
    given = _DEFAULT_ROPE[kind] if given is None else given
    if not isinstance(given, Mapping):
        raise _refused(f"rope_parameters.{name}", given, "an object")
    rope_type = given.get("rope_type", "default")
    if rope_type not in ("default", "proportional"):
        raise _refused(f"rope_parameters.{name}.rope_type", rope_type, "default or proportional")
    proportional = rope_type == "proportional"
    part = _get(given, "partial_rotary_factor", float, 1.0) if proportional else 1.0
    return RopeConfig(
        theta=_get(given, "rope_theta", float, 10_000.0),
        rotated_pairs=int((part or 1.0) * head_dim // 2),
        factor=(_get(given, "factor", float, 1.0) or 1.0) if proportional else 1.0,
    )


def _window(text: Json) -> int:
    unified = text.get("model_type") == "gemma4_unified_text"
    return _get(text, "sliding_window", int, 1024 if unified else 512)


def _eps(text: Json) -> float:
    return _get(text, "rms_norm_eps", float, 1e-6)


def _ple_dim(text: Json) -> int:
    """Width of per-layer embeddings; the unified family has none, and null means none."""
    unified = text.get("model_type") == "gemma4_unified_text"
    key = "hidden_size_per_layer_input"
    width = 0 if text.get(key, 0) is None else _get(text, key, int, 0 if unified else 256)
    if width and text.get("vocab_size_per_layer_input", text["vocab_size"]) != text["vocab_size"]:
        raise _refused(
            "vocab_size_per_layer_input", text["vocab_size_per_layer_input"], "the vocab_size"
        )
    return width


def _moe(text: Json) -> MoEConfig | None:
    if not text.get("enable_moe_block", False):
        return None
    return MoEConfig(
        experts=_get(text, "num_experts", int),
        top_k=_get(text, "top_k_experts", int),
        intermediate=_get(text, "moe_intermediate_size", int),
    )


def _centroid(data: Json, vocab_size: int) -> CentroidConfig:
    centroids = _get(data, "num_centroids", int, 2048)
    if vocab_size % centroids:
        raise _refused("num_centroids", centroids, f"a divisor of the vocabulary, {vocab_size}")
    return CentroidConfig(centroids, _get(data, "centroid_intermediate_top_k", int, 32))


def _bidirectional_images(text: Json) -> bool:
    unified = text.get("model_type") == "gemma4_unified_text"
    mode = text.get("use_bidirectional_attention", "vision" if unified else None)
    if mode not in (None, "vision"):
        raise _refused("use_bidirectional_attention", mode, 'null or "vision"')
    return mode == "vision"


def _suppressed(data: Json) -> tuple[int, ...]:
    tokens = data.get("suppress_tokens") or []
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise _refused("suppress_tokens", tokens, "a list of token ids")
    return tuple(tokens)


_REQUIRED = object()


def _get(data: Json, key: str, kind: type[_T], default: object = _REQUIRED) -> _T:
    """The value under `key`; null is taken as given where the default is null or falsy."""
    value = data.get(key, default)
    if value is _REQUIRED:
        raise _refused(key, None, f"{kind.__name__}; it is missing")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return cast(_T, float(value))
    if value is None and not (default is _REQUIRED or default):
        return cast(_T, value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _refused(key, value, kind.__name__)
    return value


def _refused(key: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(
        f"config.json: {key} is {value!r}; this decoder wants {wanted}.",
        fix="Is this a Gemma 4 model, and its config.json whole?",
    )
