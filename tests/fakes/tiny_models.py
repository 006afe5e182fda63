"""Tiny random Gemma 4 pairs of all five shapes, built by transformers and saved as checkpoints.

```
<directory>/target/     config.json  model.safetensors
<directory>/assistant/  config.json  model.safetensors
```
The transformers models are the oracle of our own decoder's tests; the saved files are its input.
Weights are random but not degenerate: norms, layer scalars and scales differ from one, and logits
spread over a few units, so that a missing term shows.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import (
    Gemma4AssistantConfig,
    Gemma4AssistantForCausalLM,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    Gemma4UnifiedAssistantConfig,
    Gemma4UnifiedAssistantForCausalLM,
    Gemma4UnifiedForCausalLM,
    Gemma4UnifiedTextConfig,
    PreTrainedModel,
)

VOCAB = 128
HIDDEN = 64
WINDOW = 8
HEAD_DIM = 16
GLOBAL_HEAD_DIM = 32
PLE_DIM = 8


class TinyPair(NamedTuple):
    """A random pair: the two oracles and the directory that holds their checkpoints."""

    target: PreTrainedModel
    assistant: PreTrainedModel
    directory: Path


def e2b(directory: Path, seed: int = 0) -> TinyPair:
    """Per-layer embeddings, one K/V head, five K/V-shared double-wide layers, centroid drafter."""
    text = _text(
        layers="SSSSFSSSSF",
        num_kv_shared_layers=5,
        use_double_wide_mlp=True,
        hidden_size_per_layer_input=PLE_DIM,
    )
    return _gemma4_pair(directory, seed, text, ordered=True)


def e4b(directory: Path, seed: int = 0) -> TinyPair:
    """Per-layer embeddings, two K/V heads, four K/V-shared layers, centroid drafter."""
    text = _text(
        layers="SSSFSSSF",
        num_key_value_heads=2,
        num_kv_shared_layers=4,
        hidden_size_per_layer_input=PLE_DIM,
    )
    return _gemma4_pair(directory, seed, text, ordered=True)


def b12(directory: Path, seed: int = 0) -> TinyPair:
    """The unified shape: K=V full layers with one K/V head, image blocks, dense drafter."""
    text = _text(
        layers="SSFSSF",
        num_key_value_heads=2,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        use_bidirectional_attention="vision",
    )
    for absent in ("hidden_size_per_layer_input", "vocab_size_per_layer_input", "enable_moe_block"):
        del text[absent]
    target = _randomised(Gemma4UnifiedForCausalLM(Gemma4UnifiedTextConfig(**text)), seed)
    draft = Gemma4UnifiedTextConfig(**_draft_text(text))
    config = Gemma4UnifiedAssistantConfig(
        text_config=draft, backbone_hidden_size=HIDDEN, num_centroids=16
    )
    return _saved(
        target, _randomised(Gemma4UnifiedAssistantForCausalLM(config), seed + 1), directory
    )


def a4b(directory: Path, seed: int = 0) -> TinyPair:
    """The 26B-A4B shape: eight experts, two used, a dense branch, K=V, dense drafter."""
    text = _text(
        layers="SSFSSF",
        num_key_value_heads=4,
        num_global_key_value_heads=2,
        attention_k_eq_v=True,
        use_bidirectional_attention="vision",
        enable_moe_block=True,
        num_experts=8,
        top_k_experts=2,
        moe_intermediate_size=24,
    )
    return _gemma4_pair(directory, seed, text, ordered=False)


def b31(directory: Path, seed: int = 0) -> TinyPair:
    """The 31B shape: K=V full layers with fewer K/V heads, image blocks, dense drafter."""
    text = _text(
        layers="SSSFSSF",
        num_attention_heads=8,
        num_key_value_heads=4,
        num_global_key_value_heads=2,
        attention_k_eq_v=True,
        use_bidirectional_attention="vision",
    )
    return _gemma4_pair(directory, seed, text, ordered=False)


SHAPES: Mapping[str, Callable[[Path, int], TinyPair]] = {
    "e2b": e2b,
    "e4b": e4b,
    "12b": b12,
    "26b": a4b,
    "31b": b31,
}


def checkpoint_files(directory: Path) -> dict[str, Path]:
    """Names in the repository and where each file lies, as the loader wants them."""
    return {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}


def _text(layers: str, **different: Any) -> dict[str, Any]:
    kinds = {"S": "sliding_attention", "F": "full_attention"}
    common: dict[str, Any] = {
        "vocab_size": VOCAB,
        "vocab_size_per_layer_input": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": len(layers),
        "layer_types": [kinds[letter] for letter in layers],
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "global_head_dim": GLOBAL_HEAD_DIM,
        "sliding_window": WINDOW,
        "hidden_size_per_layer_input": 0,
        "enable_moe_block": False,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 4096,
    }
    return common | different


def _draft_text(target: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("num_attention_heads", "num_key_value_heads", "num_global_key_value_heads")
    text = _text(layers="SSSF", **{name: target[name] for name in kept if name in target})
    text |= {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_kv_shared_layers": 4,
        "attention_k_eq_v": target.get("attention_k_eq_v", False),
        "final_logit_softcapping": None,
        "vocab_size_per_layer_input": 0,
    }
    if "enable_moe_block" not in target:  # the unified family has none of these fields
        del text["enable_moe_block"]
        del text["hidden_size_per_layer_input"]
        del text["vocab_size_per_layer_input"]
    return text


def _gemma4_pair(directory: Path, seed: int, text: dict[str, Any], ordered: bool) -> TinyPair:
    target = _randomised(Gemma4ForCausalLM(Gemma4TextConfig(**text)), seed)
    config = Gemma4AssistantConfig(
        text_config=Gemma4TextConfig(**_draft_text(text)),
        backbone_hidden_size=HIDDEN,
        use_ordered_embeddings=ordered,
        num_centroids=16,
        centroid_intermediate_top_k=4,
    )
    return _saved(target, _randomised(Gemma4AssistantForCausalLM(config), seed + 1), directory)


def _randomised(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Fills every parameter and buffer that a checkpoint holds; the same seed, the same weights."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith("lm_head.weight"):
            continue  # tied to the embedding
        if name.endswith("token_ordering"):
            tensor.copy_(torch.randperm(tensor.numel(), generator=generator))
        elif tensor.ndim == 1:
            head = name.endswith(("q_norm.weight", "k_norm.weight"))
            middle = tensor.numel() ** -0.25 if head else 1.0  # attention has no 1/sqrt(d)
            tensor.copy_(middle * torch.empty_like(tensor).uniform_(0.5, 1.5, generator=generator))
        else:
            embedding = "embed_tokens" in name
            deviation = 0.3 if embedding else 1.5 * tensor.shape[-1] ** -0.5
            tensor.copy_(torch.empty_like(tensor).normal_(0, deviation, generator=generator))
    return model.eval().requires_grad_(False)


def _saved(target: PreTrainedModel, assistant: nn.Module, directory: Path) -> TinyPair:
    target.save_pretrained(directory / "target")
    assistant.save_pretrained(directory / "assistant")
    return TinyPair(target, assistant, directory)
