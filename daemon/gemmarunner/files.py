"""Reads a target's small files, those about text: tokenizer, template, end tokens."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer

from gemmad.api.errors import LoadFailed
from gemmarunner.chat import Format
from gemmarunner.gguf_tokenizer import (
    NO_TEMPLATE_NOTE,
    TEMPLATE,
    end_ids,
    make_format,
    make_tokenizer,
)
from gemmarunner.models.gguf_file import is_gguf, read_model

DEFAULT_EOS_IDS = frozenset((1, 106, 50))  # <eos>, <turn|>, <|tool_response>
_AGAIN = "Pull the model again."

Files = Mapping[str, Path]


def read_tokenizer(files: Files) -> Tokenizer:
    """The tokenizer of tokenizer.json, or of a GGUF file's metadata.

    Raises:
        LoadFailed: the file is missing or damaged.
    """
    if "tokenizer.json" not in files and is_gguf(files):
        return make_tokenizer(read_model(files))
    if "tokenizer.json" not in files:
        raise LoadFailed("The model has no file tokenizer.json.", fix=_AGAIN)
    try:
        return Tokenizer.from_file(str(files["tokenizer.json"]))
    except Exception as error:  # the library raises nothing more precise
        raise LoadFailed(f"tokenizer.json could not be read: {error}.", fix=_AGAIN) from error


def read_format(files: Files) -> Format:
    """The chat template (a file of its own, or inside tokenizer_config.json) and its tokens.

    A GGUF file's metadata have them too; a template that lies beside it goes before its own.

    Raises:
        LoadFailed: a file is damaged.
    """
    if is_gguf(files) and "tokenizer_config.json" not in files:
        found = make_format(read_model(files))
        own = "chat_template.jinja" in files
        return found._replace(template=_text(files, "chat_template.jinja")) if own else found
    config = read_json(files, "tokenizer_config.json")
    template: object = config.get("chat_template")
    if "chat_template.jinja" in files:
        template = _text(files, "chat_template.jinja")
    elif isinstance(template, list):  # several, by name
        named = {entry["name"]: entry["template"] for entry in template if "name" in entry}
        template = named.get("default")
    return Format(
        template=template if isinstance(template, str) else None,
        bos=_token(config, "bos_token", "<bos>"),
        eos=_token(config, "eos_token", "<eos>"),
    )


def read_eos_ids(files: Files) -> frozenset[int]:
    """The tokens that end an answer, of generation_config.json or GGUF, else Gemma 4's.

    Raises:
        LoadFailed: the file is damaged.
    """
    if is_gguf(files) and "generation_config.json" not in files:
        return end_ids(read_model(files)) or DEFAULT_EOS_IDS
    match read_json(files, "generation_config.json").get("eos_token_id"):
        case int() as one:
            return frozenset((one,))
        case [*several] if several and all(isinstance(id, int) for id in several):
            return frozenset(cast(list[int], several))
        case None:
            return DEFAULT_EOS_IDS
        case other:
            raise LoadFailed(
                f"generation_config.json: eos_token_id is {other!r}, not a token id or a list.",
                fix=_AGAIN,
            )


def read_notes(files: Files) -> tuple[str, ...]:
    """What a person should know of how these files were read."""
    if not is_gguf(files) or {"chat_template.jinja", "tokenizer_config.json"} & files.keys():
        return ()
    return () if TEMPLATE in read_model(files).metadata else (NO_TEMPLATE_NOTE,)


def _token(config: Mapping[str, object], key: str, default: str) -> str:
    """A token's text, which is stored as it is or in an object."""
    value = config.get(key)
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else default


def read_json(files: Files, name: str) -> dict[str, object]:
    if name not in files:
        return {}
    try:
        data = json.loads(_text(files, name))
    except ValueError as error:
        raise LoadFailed(f"{name} is not JSON: {error}.", fix=_AGAIN) from error
    if not isinstance(data, dict):
        raise LoadFailed(f"{name} is not a JSON object.", fix=_AGAIN)
    return data


def _text(files: Files, name: str) -> str:
    try:
        return files[name].read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadFailed(f"{name} could not be read: {error}.", fix=_AGAIN) from error
