"""Every spelling of a Gemma 4 config.json gives the same facts, and a foreign one a clear error."""

import json

import pytest

from gemmarunner.models.config import ConfigError
from gemmarunner.models.hf_config import read_drafter_config, read_target_config

TEXT = {
    "model_type": "gemma4_text",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "head_dim": 16,
    "global_head_dim": 32,
    "sliding_window": 8,
    "hidden_size_per_layer_input": None,
    "final_logit_softcapping": 30.0,
}
FULL = {"head_dim": 32, "num_key_value_heads": 1}


def without(*keys: str, **more: object) -> dict[str, object]:
    return {key: value for key, value in TEXT.items() if key not in keys} | more


@pytest.mark.parametrize(
    "data",
    [
        {"model_type": "gemma4", "text_config": TEXT},
        {"model_type": "gemma4_unified", "text_config": TEXT},
        without("global_head_dim", per_layer_config={"2": FULL, "5": FULL}),
        without("global_head_dim", per_layer_config={"full_attention": FULL}),
        without("global_head_dim", per_layer_config=[{}, None, FULL, {}, {}, FULL]),
        without("hidden_size_per_layer_input", hidden_size_per_layer_input=0),
        json.loads(json.dumps(TEXT | {"num_kv_shared_layers": 0, "use_double_wide_mlp": True})),
    ],
    ids=["nested", "unified", "by index", "by type", "as a list", "PLE 0", "nothing shared"],
)
def test_spellings_mean_the_same(data) -> None:
    """Nested or not, old keys or per_layer_config, null or zero."""
    assert read_target_config(data) == read_target_config(TEXT)


def test_facts_of_a_shared_double_wide_model() -> None:
    """Donors, widths and head shapes of the E2B pattern."""
    data = without("attention_k_eq_v", num_kv_shared_layers=3, use_double_wide_mlp=True)
    config = read_target_config(data)

    assert [layer.donor for layer in config.layers] == [None, None, None, 1, 1, 2]
    assert [layer.intermediate for layer in config.layers] == [96] * 3 + [192] * 3
    assert (config.sliding_donor, config.full_donor, config.first_shared) == (1, 2, 3)
    assert [layer.kv_heads for layer in config.layers] == [2] * 6  # global heads need K=V
    assert config.layers[2].rope.rotated_pairs == 4
    assert config.layers[0].rope.rotated_pairs == 8


def test_suppressed_tokens_come_from_the_generation_config() -> None:
    """The 12B lists two there."""
    config = read_target_config(TEXT, {"suppress_tokens": [7, 9]})

    assert config.suppress_tokens == (7, 9)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention is 'all'"),
        ({"layer_types": ["sliding_attention"]}, "layer_types is"),
        ({"num_kv_shared_layers": 6}, "num_kv_shared_layers is 6"),
        ({"per_layer_config": {"2": {"rank": 3}}}, r"per_layer_config\[2\] is {'rank': 3}"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type is 'yarn'"),
    ],
)
def test_unreadable_config_names_key_and_value(change, named) -> None:
    """The reader learns what is wrong where."""
    with pytest.raises(ConfigError, match=named):
        read_target_config(TEXT | change)


def test_drafter_config_reads_both_heads() -> None:
    """use_ordered_embeddings decides; the centroid fields are there even where unused."""
    data = {
        "model_type": "gemma4_assistant",
        "backbone_hidden_size": 64,
        "num_centroids": 16,
        "centroid_intermediate_top_k": 4,
        "text_config": TEXT | {"num_kv_shared_layers": 6},
    }
    ordered = read_drafter_config(data | {"use_ordered_embeddings": True})

    assert read_drafter_config(data).centroid is None
    assert ordered.centroid is not None
    assert (ordered.centroid.centroids, ordered.centroid.top_k) == (16, 4)
