"""A built-in pair without a model: the right files, tiny weights of zeros."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

CONFIG = {
    "architectures": ["Gemma4ForCausalLM"],
    "model_type": "gemma4",
    "text_config": {
        "model_type": "gemma4_text",
        "hidden_size": 256,
        "num_hidden_layers": 8,
        "max_position_embeddings": 8192,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "sliding_window": 128,
        "vocab_size": 8192,
    },
}
DRAFTER_CONFIG = {
    "architectures": ["Gemma4AssistantForCausalLM"],
    "model_type": "gemma4_assistant",
    "backbone_hidden_size": 256,
    "text_config": CONFIG["text_config"] | {"hidden_size": 64, "num_hidden_layers": 2},
}
TEMPLATE = "{# <|think|> <|tool> <|tool_call> #}{{ messages }}"


def write_pair(directory: Path, *, drafter: bool = True, fake: Mapping[str, object] = {}) -> Path:
    """The pair lies in `directory`; `fake` becomes the fake runner's options."""
    target = directory / "target"
    target.mkdir(parents=True)
    write_json(target / "config.json", CONFIG)
    write_json(target / "generation_config.json", {"temperature": 0.5, "top_k": 32})
    write_json(target / "tokenizer.json", {"model": {"type": "BPE"}})
    write_json(target / "tokenizer_config.json", {})
    (target / "chat_template.jinja").write_text(TEMPLATE)
    (target / "model.safetensors").write_bytes(weights({"a": [100, 10], "b": [24]}))
    if fake:
        write_json(target / "fake.json", dict(fake))
    if drafter:
        (directory / "drafter").mkdir()
        write_json(directory / "drafter" / "config.json", DRAFTER_CONFIG)
        (directory / "drafter" / "model.safetensors").write_bytes(weights({"d": [50]}))
    (directory / "LICENSE").write_text("Apache License 2.0")
    (directory / "README.md").write_text("# A pair for tests")
    return directory


def write_json(path: Path, value: object) -> None:
    """`value` as a JSON file."""
    path.write_text(json.dumps(value))


def weights(shapes: Mapping[str, list[int]]) -> bytes:
    """A safetensors file of bf16 zeros."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + bytes(offset)
