"""Writes what llama.cpp must know of a model into a GGUF file's metadata: shape, text, template."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer

from gemmad.api.errors import BadRequest
from gemmad.formats.gguf import LIMITS
from gemmarunner.chat import Format
from gemmarunner.gguf_tokenizer import HF_JSON, SHOWN_CONTROLS
from gemmarunner.models.config import DrafterConfig, LayerConfig, TargetConfig

# llama.cpp's chat parsers read these in the text, so they must not vanish from it.
_VISIBLE = SHOWN_CONTROLS - {"<|tool_response>"}  # which ends an answer: a control to it
_SPECIAL = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"}


def add_target_shape(writer: GGUFWriter, config: TargetConfig) -> None:
    """The keys of `gemma4` are in `writer`."""
    _add_common(writer, config, config.layers)
    writer.add_shared_kv_layers(len(config.layers) - config.first_shared)
    writer.add_embedding_length_per_layer_input(config.ple_dim)
    if config.softcap is not None:
        writer.add_final_logit_softcapping(config.softcap)
    if config.moe is not None:
        writer.add_expert_count(config.moe.experts)
        writer.add_expert_used_count(config.moe.top_k)
        writer.add_expert_feed_forward_length(config.moe.intermediate)
    if config.suppress_tokens:
        writer.add_array("tokenizer.ggml.suppress_tokens", list(config.suppress_tokens))


def add_drafter_shape(writer: GGUFWriter, config: DrafterConfig) -> None:
    """The keys of `gemma4-assistant` are in `writer`."""
    _add_common(writer, config, config.layers)
    count = len(config.layers)
    writer.add_shared_kv_layers(count)
    writer.add_embedding_length_per_layer_input(0)
    writer.add_uint32(f"{writer.arch}.embedding_length_out", config.backbone)
    writer.add_uint32(f"{writer.arch}.nextn_predict_layers", count)


def add_text(
    writer: GGUFWriter,
    tokenizer: Tokenizer,
    format: Format,
    generation: Mapping[str, object],
) -> None:
    """Tokenizer, template and sampling defaults are in `writer`."""
    made: dict[str, Any] = json.loads(tokenizer.to_str())
    tokens, types = _tokens(made)
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(id) for id in range(len(tokens))])
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in _pairs(made["model"]["merges"])])
    texts = _SPECIAL | {"bos": format.bos, "eos": format.eos}
    ids = {name: tokens.index(text) for name, text in texts.items() if text in tokens}
    for name, id in ids.items():
        getattr(writer, f"add_{name}_token_id")(id)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if not _splits_as_gemma(made.get("pre_tokenizer")):
        writer.add_string(HF_JSON, _whole(made))
    if format.template is not None:
        writer.add_chat_template(format.template)
    _add_sampling(writer, generation)


def _whole(made: Mapping[str, Any]) -> str:
    """The tokenizer as one text.

    Raises:
        BadRequest: it is longer than what this program reads of a GGUF file.
    """
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    if (nbytes := len(text.encode())) > LIMITS.text_bytes:
        raise BadRequest(
            f"Its tokenizer splits words in a way that a GGUF file can only hold whole, and at "
            f"{nbytes:,} bytes it is longer than the {LIMITS.text_bytes:,} that are read of one.",
            fix="Export it to a directory.",
        )
    return text


def _add_common(
    writer: GGUFWriter, config: TargetConfig | DrafterConfig, layers: Sequence[LayerConfig]
) -> None:
    dims = {layer.kind: layer.head_dim for layer in layers}
    bases = {layer.kind: layer.rope.theta for layer in layers}
    full, sliding = dims["full"], dims["sliding"]
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden)
    writer.add_block_count(len(layers))
    writer.add_feed_forward_length(_one_or_each([layer.intermediate for layer in layers]))
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(_one_or_each([layer.kv_heads for layer in layers]))
    writer.add_layer_norm_rms_eps(config.eps)
    writer.add_sliding_window(config.window)
    writer.add_sliding_window_pattern([layer.kind == "sliding" for layer in layers])
    writer.add_key_length(full)
    writer.add_value_length(full)
    writer.add_key_length_swa(sliding)
    writer.add_value_length_swa(sliding)
    writer.add_rope_dimension_count(full)
    writer.add_rope_dimension_count_swa(sliding)
    writer.add_rope_freq_base(bases["full"])
    writer.add_rope_freq_base_swa(bases["sliding"])
    writer.add_vocab_size(config.vocab_size)


def _one_or_each(values: list[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else values


def _tokens(made: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Every token by id, and what kind each is."""
    added = {entry["id"]: entry for entry in made["added_tokens"]}
    by_id = {id: text for text, id in made["model"]["vocab"].items()}
    by_id |= {id: entry["content"] for id, entry in added.items()}
    count = max(by_id) + 1
    tokens = [by_id.get(id, f"[PAD{id}]") for id in range(count)]
    return tokens, [_kind(id, by_id, added) for id in range(count)]


def _kind(id: int, by_id: Mapping[int, str], added: Mapping[int, Any]) -> int:
    text = by_id.get(id)
    if text is None:
        return int(TokenType.UNUSED)
    if id in added:
        shown = text in _VISIBLE or not added[id]["special"]
        return int(TokenType.USER_DEFINED if shown else TokenType.CONTROL)
    is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return int(TokenType.BYTE if is_byte else TokenType.NORMAL)


def _pairs(merges: Sequence[Any]) -> list[tuple[str, str]]:
    """Merges, which older tokenizers write as one text."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges)
    return [(left, right) for left, right in pairs]


def _splits_as_gemma(pre: Mapping[str, Any] | None) -> bool:
    """Whether nothing is split before merging: a space is `▁` by then."""
    return pre is None or (pre.get("type") == "Split" and pre.get("pattern") == {"String": " "})


def _add_sampling(writer: GGUFWriter, generation: Mapping[str, object]) -> None:
    top_k, top_p, temperature = (generation.get(k) for k in ("top_k", "top_p", "temperature"))
    if isinstance(top_k, int):
        writer.add_int32("general.sampling.top_k", top_k)
    if isinstance(top_p, int | float):
        writer.add_float32("general.sampling.top_p", float(top_p))
    if isinstance(temperature, int | float):
        writer.add_float32("general.sampling.temp", float(temperature))
