"""Reads the shape of a pair out of its files' headers, which the pull has checked before."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemmad.formats.ggml_types import GGML_TYPES
from gemmad.formats.gguf import Value, read_gguf
from gemmad.formats.json_text import SETTINGS, load_object
from gemmad.formats.limits import BadFile, read_bounded
from gemmad.formats.safetensors import read_header
from gemmad.inspection.pairing import text_config
from gemmad.memory.shapes import Facts, HalfShape, LayerKind, PairShape, Tensor, half_shape
from gemmad.wire import PairFiles

Files = Mapping[str, Path]

_PATTERN = 6  # where no kinds are given, every sixth layer is full
_CONFIG, _SAFETENSORS, _GGUF = "config.json", ".safetensors", ".gguf"
_LONGEST_LIST = 1_000  # a number for each layer; only a tokenizer's lists are longer
_TABLE = "embed_tokens.weight"
_GGUF_TEXT = ("blk.", "token_embd", "output", "per_layer", "nextn", "masked")
_WINDOWS = {"gemma4_unified_text": 1024}
_COMPRESSED = {"4": "Q4_0", "8": "Q8_0"}
_WORD_BITS = 32
_BESIDE = (".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx")


def read_shape(files: PairFiles) -> PairShape:
    """The shape of a pair; a drafter that cannot be read is left out, as a runner would.

    Raises:
        BadFile: the target's files are damaged.
        OSError: they cannot be read.
    """
    target = read_half(_paths(files.target))
    drafter = None
    if files.drafter:
        try:
            drafter = read_half(_paths(files.drafter), is_drafter=True)
        except (BadFile, OSError):
            drafter = None
    projector = sum(Path(path).stat().st_size for path in (files.projector or {}).values())
    return PairShape(target, drafter, projector)


def read_half(files: Files, *, is_drafter: bool = False) -> HalfShape:
    """The shape of one half.

    Raises:
        BadFile: its files are damaged, or lack what every Gemma 4 has.
        OSError: they cannot be read.
    """
    try:
        if any(name.endswith(_GGUF) for name in files):
            return _gguf(files, is_drafter)
        return _hf(files, is_drafter)
    except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise error if isinstance(error, BadFile) else BadFile(f"its layers: {error}") from error


def _hf(files: Files, is_drafter: bool) -> HalfShape:
    config = load_object(read_bounded(files[_CONFIG], SETTINGS.nbytes))
    weights = [path for name, path in sorted(files.items()) if name.endswith(_SAFETENSORS)]
    found = [Tensor(p.name, p.dtype, p.shape) for path in weights for p in read_header(path)]
    return hf_shape(config, found, is_drafter=is_drafter)


def hf_shape(config: Mapping[str, Any], tensors: list[Tensor], *, is_drafter: bool) -> HalfShape:
    """The shape that a config.json and its tensors describe; ValueError where they don't."""
    prefix = "" if is_drafter else _text_prefix(tensors)
    text = [tensor for tensor in tensors if tensor.name.startswith(prefix)]
    media = sum(_nbytes(t) for t in tensors if not t.name.startswith(prefix))
    facts = hf_facts(text_config(config), is_drafter=is_drafter)
    shape = half_shape(_unpacked_words(text, _bits(config)), facts)
    return _with_media(shape, media)


def hf_facts(text: Mapping[str, Any], *, is_drafter: bool = False) -> Facts:
    """What the text part of a config.json says of layers."""
    count = int(text["num_hidden_layers"])
    named = text.get("layer_types")
    kinds: tuple[LayerKind, ...]
    if named is None:
        kinds = _every_sixth(count)
    else:
        kinds = tuple("full" if kind == "full_attention" else "sliding" for kind in named)
    unstated = _WINDOWS.get(str(text.get("model_type")), 512)
    return Facts(
        kinds=kinds,
        window=int(text.get("sliding_window") or unstated),
        shared=count if is_drafter else int(text.get("num_kv_shared_layers") or 0),
        top_k=int(text.get("top_k_experts") or 0),
        context_length=int(text.get("max_position_embeddings") or 0),
    )


def _gguf(files: Files, is_drafter: bool) -> HalfShape:
    parts = [
        read_gguf(path, longest=_LONGEST_LIST)
        for name, path in sorted(files.items())
        if name.endswith(_GGUF)
    ]
    tensors = [tensor for part in parts for tensor in part.tensors]
    metadata = next(p.metadata for p in parts if p.metadata.get("split.no", 0) == 0)
    found = [Tensor(t.name, GGML_TYPES[t.type].name, t.shape) for t in tensors]
    text = [tensor for tensor in found if tensor.name.startswith(_GGUF_TEXT)]
    media = sum(t.nbytes for t in tensors if not t.name.startswith(_GGUF_TEXT))
    return _with_media(half_shape(text, gguf_facts(metadata, is_drafter=is_drafter)), media)


def gguf_facts(metadata: Mapping[str, Value], *, is_drafter: bool) -> Facts:
    """What the metadata says of layers."""
    prefix = str(metadata["general.architecture"])

    def get(key: str) -> Any:
        return metadata.get(f"{prefix}.{key}")

    count = int(get("block_count"))
    flags = get("attention.sliding_window_pattern")
    kinds: tuple[LayerKind, ...] = _every_sixth(count)
    if isinstance(flags, list) or hasattr(flags, "tolist"):
        kinds = tuple("sliding" if flag else "full" for flag in list(flags)[:count])
    return Facts(
        kinds=kinds,
        window=int(get("attention.sliding_window") or 512),
        shared=count if is_drafter else int(get("attention.shared_kv_layers") or 0),
        top_k=int(get("expert_used_count") or 0),
        context_length=int(get("context_length") or 0),
        is_gguf=True,
    )


def _every_sixth(count: int) -> tuple[LayerKind, ...]:
    kinds: list[LayerKind] = [
        "full" if (index + 1) % _PATTERN == 0 else "sliding" for index in range(count)
    ]
    return (*kinds[:-1], "full")


def _text_prefix(tensors: list[Tensor]) -> str:
    """What stands before the text stack's names: it differs between text and media checkpoints."""
    for tensor in tensors:
        if tensor.name == _TABLE or tensor.name.endswith(f".{_TABLE}"):
            return tensor.name.removesuffix(_TABLE)
    raise ValueError("there is no table of embeddings")


def _bits(config: Mapping[str, Any]) -> int:
    """Bits of the words that compressed-tensors packs weights in; 0: none are."""
    quantization = config.get("quantization_config") or {}
    groups = quantization.get("config_groups") if isinstance(quantization, Mapping) else None
    for group in groups.values() if isinstance(groups, Mapping) else ():
        bits = (group.get("weights") or {}).get("num_bits")
        if bits in (4, 8):
            return int(bits)
    return 0


def _unpacked_words(tensors: list[Tensor], bits: int) -> list[Tensor]:
    """Compressed matrices under the names and in the formats that a runner gives them."""
    if not bits:
        return tensors
    kind = _COMPRESSED[str(bits)]
    found = []
    for tensor in tensors:
        if tensor.name.endswith(".weight_packed"):
            rows, words = tensor.shape
            name = tensor.name.removesuffix("_packed")
            found.append(Tensor(name, kind, (rows, words * _WORD_BITS // bits)))
        elif tensor.kind == "I8" and tensor.name.endswith(".weight"):
            found.append(tensor._replace(kind="Q8_0"))
        elif not tensor.name.endswith(_BESIDE):
            found.append(tensor)
    return found


def _nbytes(tensor: Tensor) -> int:
    size = 4 if tensor.kind.endswith("32") else 1 if tensor.kind.endswith("8") else 2
    for length in tensor.shape:
        size *= length
    return size


def _with_media(shape: HalfShape, media: int) -> HalfShape:
    return replace(shape, media_bytes=media)


def _paths(group: Mapping[str, str]) -> Files:
    return {name: Path(path) for name, path in group.items()}
