"""Names of tensors: what decoders ask for (Hugging Face's words), and what GGUF files call it.

Targets' names are those below a checkpoint's `model.`; drafters have more, named in full.
"""

import re
from collections.abc import Iterator

_TOP = {
    "embed_tokens.weight": "token_embd.weight",
    "embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
    "per_layer_input_gate.weight": "inp_gate.weight",
    "per_layer_projection.weight": "proj.weight",
    "post_per_layer_input_norm.weight": "post_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
}
_DRAFTER = {
    "pre_projection.weight": "nextn.pre_projection.weight",
    "post_projection.weight": "nextn.post_projection.weight",
    "masked_embedding.centroids.weight": "masked_embd_centroids.weight",
    "masked_embedding.token_ordering": "masked_embd_ordering",
}
# How writers spell it too.
_ALIASES = {
    "nextn.pre_projection.weight": ("blk.0.nextn.pre_projection.weight",),
    "nextn.post_projection.weight": (
        "blk.0.nextn.post_projection.weight",
        "blk.3.nextn.post_projection.weight",
    ),
    "masked_embd_ordering": ("masked_embd_ordering.weight",),
}
FUSED_QKV = "attn_qkv.weight"  # rows of queries, keys and values one under the other
GATE_EXPERTS = "ffn_gate_exps.weight"  # an older layout of ffn_gate_up_exps
UP_EXPERTS = "ffn_up_exps.weight"
ROPE_FREQS = "rope_freqs.weight"
# Not all writers have these; without one it changes nothing.
ONES = ("layer_scalar", "router.per_expert_scale")

_IN_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def gguf_names(name: str) -> Iterator[str]:
    """What a file may call the tensor `name` of a target or drafter, likeliest first.

    Raises:
        KeyError: decoders have no tensor of that name.
    """
    found = _DRAFTER.get(name) or _text_name(name.removeprefix("model."))
    yield found
    yield from _ALIASES.get(found, ())


def layer_of(name: str) -> tuple[str, str] | None:
    """The beginning of GGUF names of the layer that `name` is of, and what it is there."""
    match = _IN_LAYER.fullmatch(name.removeprefix("model."))
    return (f"blk.{match[1]}.", match[2]) if match else None


def _text_name(name: str) -> str:
    match = _IN_LAYER.fullmatch(name)
    return _TOP[name] if match is None else f"blk.{match[1]}.{_LAYER[match[2]]}"


def checkpoint_names(architecture_is_drafter: bool, layers: int) -> list[str]:
    """Every name that a decoder of so many layers may ask for, in the order in which it does."""
    top = [name for name in _TOP if name not in ("norm.weight", "lm_head.weight")]
    body = [f"layers.{index}.{name}" for index in range(layers) for name in _LAYER]
    if architecture_is_drafter:
        return [*_DRAFTER, *(f"model.{name}" for name in (*top, *body, "norm.weight"))]
    return [*top, "lm_head.weight", *body, "norm.weight"]
