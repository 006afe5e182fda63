"""Which files of a repository are ever fetched: weights in two formats, and named texts."""

import re

MAX_NAME_CHARS = 120
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SUFFIXES = (".safetensors", ".gguf")
_NAMED = frozenset(
    (
        *("config.json", "generation_config.json", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("added_tokens.json", "vocab.json", "merges.txt"),
        *("chat_template.jinja", "chat_template.json"),
        *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
        *("adapter_config.json", "adapter_model.safetensors.index.json"),
        *("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt"),
        *("README.md", "params", "template", "system"),
    )
)


def wanted_file(name: str) -> bool:
    """Whether a file of this base name may be fetched; never pickle, never code."""
    if len(name) > MAX_NAME_CHARS or not _PLAIN.fullmatch(name):
        return False
    return name in _NAMED or name.endswith(_SUFFIXES)
