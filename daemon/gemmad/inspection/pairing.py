"""Whether a drafter was made for a target, by the sizes that both configurations state; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemmad.formats.gguf import Gguf
from gemmad.formats.limits import BadFile
from gemmad.inspection.settings import Settings, gguf_settings, hf_settings

_SIZES = {1536: "E2B", 2560: "E4B", 3840: "12B", 2816: "26B-A4B", 5376: "31B"}  # by hidden size
_SLIDING, _FULL = "sliding_attention", "full_attention"
_PATTERN = 6  # where a config names no layer types, every sixth layer is full
_WINDOWS = {"gemma4_unified_text": 1024}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a drafter reads of its target, as either states it; None where it does not."""

    backbone: int | None  # hidden size of the target
    vocab: int | None = None
    window: int | None = None
    sliding_kv_heads: int | None = None
    full_kv_heads: int | None = None
    sliding_head_dim: int | None = None
    full_head_dim: int | None = None

    @property
    def size(self) -> str | None:
        """Google's name of the target's size: E2B, 31B."""
        return _SIZES.get(self.backbone or 0)


def mismatch(target: Shape, drafter: Shape) -> str | None:
    """Why `drafter` cannot draft for `target`: the first value that differs, with both values."""
    facts = (
        ("the target's hidden size", drafter.backbone, target.backbone),
        ("the vocabulary", drafter.vocab, target.vocab),
        ("the sliding window", drafter.window, target.window),
        ("K/V heads of sliding layers", drafter.sliding_kv_heads, target.sliding_kv_heads),
        ("K/V heads of full layers", drafter.full_kv_heads, target.full_kv_heads),
        ("the head size of sliding layers", drafter.sliding_head_dim, target.sliding_head_dim),
        ("the head size of full layers", drafter.full_head_dim, target.full_head_dim),
    )
    for what, drafters, targets in facts:
        if drafters is not None and targets is not None and drafters != targets:
            made_for = f" It was made for {drafter.size}." if drafter.size != target.size else ""
            made_for = made_for if drafter.size else ""
            return f"{what} is {drafters} in the drafter and {targets} in the target.{made_for}"
    return None


def hf_shape(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json of a target or drafter states.

    Raises:
        BadFile: a size is missing or out of range.
    """
    text = text_config(config)
    settings = hf_settings(text)
    drafter = "assistant" in str(config.get("model_type"))
    backbone = config.get("backbone_hidden_size") if drafter else settings["embedding_length"]
    unstated = _WINDOWS.get(str(text.get("model_type")), 512)
    sliding, full = (_heads(text, kind, drafter) for kind in (_SLIDING, _FULL))
    return Shape(
        backbone=_int(backbone),
        vocab=_int(settings.get("vocab_size")),
        window=_int(settings.get("attention.sliding_window", unstated)),
        sliding_kv_heads=sliding[0],
        full_kv_heads=full[0],
        sliding_head_dim=sliding[1],
        full_head_dim=full[1],
    )


def gguf_shape(gguf: Gguf) -> Shape:
    """The shape that a GGUF file of a target or drafter states.

    Raises:
        BadFile: a size is missing or out of range.
    """
    architecture = str(gguf.metadata.get("general.architecture"))
    settings = gguf_settings(gguf.metadata, architecture)
    if "assistant" in architecture:
        backbone = _int(settings.get("embedding_length_out")) or _rows(gguf, "post_projection")
    else:
        backbone = _int(settings["embedding_length"])
    return Shape(
        backbone=backbone,
        vocab=_rows(gguf, "token_embd") or _int(settings.get("vocab_size")),
        window=_int(settings.get("attention.sliding_window")),
        sliding_kv_heads=_kv_heads(settings, 1),
        full_kv_heads=_kv_heads(settings, 0),
        sliding_head_dim=_int(settings.get("attention.key_length_swa")),
        full_head_dim=_int(settings.get("attention.key_length")),
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text part of a config: its `text_config`, or the config itself when it is one."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _heads(text: Mapping[str, Any], kind: str, drafter: bool) -> tuple[int | None, int | None]:
    """K/V heads and head size of the layers of one kind."""
    heads, size = _int(text.get("num_key_value_heads")), _int(text.get("head_dim", 256))
    overrides = text.get("per_layer_config")
    if overrides is not None:
        found = _override(text, overrides, kind, drafter)
        return _int(found.get("num_key_value_heads", heads)), _int(found.get("head_dim", size))
    if kind == _FULL:
        size = _int(text.get("global_head_dim")) or 512
        if text.get("attention_k_eq_v"):
            heads = _int(text.get("num_global_key_value_heads")) or heads
    return heads, size


def _override(
    text: Mapping[str, Any], overrides: object, kind: str, drafter: bool
) -> Mapping[str, Any]:
    """What `per_layer_config` says of the layer of this kind that the drafter reads."""
    kinds = _kinds(text)
    shared = 0 if drafter else _int(text.get("num_kv_shared_layers")) or 0
    owners = [index for index in range(len(kinds) - shared) if kinds[index] == kind]
    index = owners[-1] if owners else -1
    found: object = None
    if isinstance(overrides, list):
        found = overrides[index] if 0 <= index < len(overrides) else None
    elif isinstance(overrides, Mapping):
        found = overrides.get(str(index), overrides.get(kind))
    return found if isinstance(found, Mapping) else {}


def _kinds(text: Mapping[str, Any]) -> list[str]:
    named = text.get("layer_types")
    if isinstance(named, list):
        return [str(kind) for kind in named]
    count = min(_int(text.get("num_hidden_layers")) or 0, 1_000)
    kinds = [_FULL if (index + 1) % _PATTERN == 0 else _SLIDING for index in range(count)]
    return [*kinds[:-1], _FULL] if kinds else []


def _kv_heads(settings: Settings, sliding: int) -> int | None:
    """K/V heads of the last layer of one kind that has K/V of its own."""
    heads, flags = (
        settings.get(f"attention.{key}") for key in ("head_count_kv", "sliding_window_pattern")
    )
    if not isinstance(heads, list):
        return _int(heads)
    if not isinstance(flags, list) or len(flags) != len(heads):
        return heads[0] if len(set(heads)) == 1 else None
    shared = _int(settings.get("attention.shared_kv_layers")) or 0
    owners = range(len(heads) - (shared if shared < len(heads) else 0))
    return next((heads[index] for index in reversed(owners) if flags[index] == sliding), None)


def _rows(gguf: Gguf, part: str) -> int | None:
    """Rows of the matrix `part`."""
    for tensor in gguf.tensors:
        if tensor.name.removesuffix(".weight").endswith(part) and len(tensor.shape) == 2:
            return tensor.shape[0]
    return None


def _int(value: object) -> int | None:
    if value is None or type(value) is int:
        return value
    raise BadFile(f"it has {str(value)[:40]!r} where a size belongs")
