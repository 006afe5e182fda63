"""What a tensor is to a decoder, by its name: in Hugging Face's words, and in GGUF's; pure."""

import re
from collections.abc import Mapping
from typing import Literal

Role = Literal[
    "table", "head", "ple_table", "ple_context", "qkv", "output", "gate_up", "down", "router",
    "experts_up", "experts_down", "ple_gate", "ple_widen", "enter", "leave", "centroids",
    "ordering", "small",
]  # fmt: skip

_ROLES: Mapping[str, Role] = {
    "embed_tokens.weight": "table", "token_embd.weight": "table",
    "lm_head.weight": "head", "output.weight": "head",
    "embed_tokens_per_layer.weight": "ple_table", "per_layer_token_embd.weight": "ple_table",
    "per_layer_model_projection.weight": "ple_context",
    "per_layer_model_proj.weight": "ple_context",
    "q_proj.weight": "qkv", "k_proj.weight": "qkv", "v_proj.weight": "qkv",
    "attn_q.weight": "qkv", "attn_k.weight": "qkv", "attn_v.weight": "qkv",
    "attn_qkv.weight": "qkv",
    "o_proj.weight": "output", "attn_output.weight": "output",
    "gate_proj.weight": "gate_up", "up_proj.weight": "gate_up",
    "ffn_gate.weight": "gate_up", "ffn_up.weight": "gate_up",
    "down_proj.weight": "down", "ffn_down.weight": "down",
    "router.proj.weight": "router", "ffn_gate_inp.weight": "router",
    "experts.gate_up_proj": "experts_up", "ffn_gate_up_exps.weight": "experts_up",
    "ffn_gate_exps.weight": "experts_up", "ffn_up_exps.weight": "experts_up",
    "experts.down_proj": "experts_down", "ffn_down_exps.weight": "experts_down",
    "per_layer_input_gate.weight": "ple_gate", "inp_gate.weight": "ple_gate",
    "per_layer_projection.weight": "ple_widen", "proj.weight": "ple_widen",
    "pre_projection.weight": "enter", "post_projection.weight": "leave",
    "masked_embedding.centroids.weight": "centroids", "masked_embd_centroids.weight": "centroids",
    "masked_embedding.token_ordering": "ordering", "masked_embd_ordering": "ordering",
    "masked_embd_ordering.weight": "ordering",
}  # fmt: skip
_LONGEST = max(name.count(".") for name in _ROLES) + 1
_ONE_EXPERT = re.compile(r"\.experts\.\d+\.(gate|up|down)_proj\.weight$")


def role_of(name: str) -> Role:
    """What a tensor is to a decoder; norms and scalars are small."""
    if one := _ONE_EXPERT.search(name):
        return "experts_down" if one[1] == "down" else "experts_up"
    parts = name.split(".")
    for count in range(min(_LONGEST, len(parts)), 0, -1):
        if role := _ROLES.get(".".join(parts[-count:])):
            return role
    return "small"
