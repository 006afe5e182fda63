"""What a model's small files say, in each of the forms they are found in."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemmad.api.errors import LoadFailed
from gemmarunner.chat import Format
from gemmarunner.files import read_eos_ids, read_format, read_tokenizer
from tests.fakes.tiny_text import write_text_files


def written(directory: Path, **files: Any) -> dict[str, Path]:
    """Files of these contents, JSON unless text; `__` in a name stands for a dot."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / name.replace("__", ".")).write_text(text)
    return {path.name: path for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        ({"eos_token_id": [1, 106, 50]}, {1, 106, 50}),
        ({"eos_token_id": 1}, {1}),
        ({"eos_token_id": None}, {1, 106, 50}),
        ({}, {1, 106, 50}),
    ],
)
def test_end_tokens_are_a_list_one_or_gemmas(
    tmp_path: Path, config: dict[str, object], ids: set[int]
) -> None:
    """Both spellings are read; without any, Gemma 4's own are used."""
    assert read_eos_ids(written(tmp_path, generation_config__json=config)) == ids


@pytest.mark.parametrize(
    "content", ["not json", "[]", {"eos_token_id": "one"}, {"eos_token_id": []}]
)
def test_damaged_generation_config_is_named(tmp_path: Path, content: Any) -> None:
    """The error names the file."""
    with pytest.raises(LoadFailed, match=r"generation_config\.json"):
        read_eos_ids(written(tmp_path, generation_config__json=content))


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({"chat_template__jinja": "J", "tokenizer_config__json": {"chat_template": "C"}}, "J"),
        ({"tokenizer_config__json": {"chat_template": "C"}}, "C"),
        (
            {
                "tokenizer_config__json": {
                    "chat_template": [
                        {"name": "tool_use", "template": "T"},
                        {"name": "default", "template": "D"},
                    ]
                }
            },
            "D",
        ),
        ({}, None),
    ],
)
def test_template_is_found_where_it_is(
    tmp_path: Path, files: dict[str, Any], template: str | None
) -> None:
    """A file of its own comes first, then tokenizer_config.json, whole or by name."""
    assert read_format(written(tmp_path, **files)) == Format(template, "<bos>", "<eos>")


def test_tokens_are_text_or_objects(tmp_path: Path) -> None:
    """Both spellings of a special token are read."""
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}

    format = read_format(written(tmp_path, tokenizer_config__json=config))

    assert (format.bos, format.eos) == ("<s>", "</s>")


def test_tokenizer_is_read_or_named(tmp_path: Path) -> None:
    """A whole file gives a tokenizer; a missing or damaged one is named."""
    write_text_files(tmp_path)
    assert read_tokenizer(written(tmp_path)).token_to_id("<|turn>") == 105
    with pytest.raises(LoadFailed, match=r"no file tokenizer\.json"):
        read_tokenizer({})
    with pytest.raises(LoadFailed, match=r"tokenizer\.json could not be read"):
        read_tokenizer(written(tmp_path, tokenizer__json="{}"))
