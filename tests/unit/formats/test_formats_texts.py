"""Safetensors headers, JSON, indexes, configs and file names of strangers."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from gemmad.formats.file_names import wanted_file
from gemmad.formats.hf_config import check_config
from gemmad.formats.json_text import load_json
from gemmad.formats.limits import BadFile
from gemmad.formats.safetensors import read_header
from gemmad.formats.shard_index import shards


def safetensors(path: Path, header: Any, data: bytes = b"\0" * 24) -> Path:
    """A file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    """One entry of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = {"a": tensor(0, 8, [2]), "b": tensor(8, 24, [2, 2])}


def test_a_sound_header_gives_every_place(tmp_path: Path) -> None:
    """Names, types, shapes and bytes."""
    path = safetensors(tmp_path / "w", GOOD | {"__metadata__": {"format": "pt"}})

    places = read_header(path)

    start = path.stat().st_size - 24
    assert [(p.name, p.begin - start, p.nbytes, p.shape) for p in places] == [
        ("a", 0, 8, (2,)),
        ("b", 8, 16, (2, 2)),
    ]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"a": tensor(0, 800, [200])},
        {"a": tensor(0, 8, [3])},
        {"a": tensor(0, 8, [-2])},
        {"a": tensor(8, 0, [2])},
        {"a": tensor(0, 8, [2]), "b": tensor(4, 20, [2, 2])},
        {"a": tensor(0, 8, [2], "NONE")},
        {"a": {"dtype": "F32"}},
        {"a": []},
        [],
        b"[" * 5_000,
        b'{"a": 1, "a": 2}',
        b"\xff\xfe",
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any) -> None:
    """Beyond the file, overlapping, odd shapes, no JSON: BadFile and nothing else."""
    with pytest.raises(BadFile):
        read_header(safetensors(tmp_path / "w", header))


@pytest.mark.parametrize(
    "text", [b"", b"NaN", b"{", b'{"a":1,"a":2}', b"[" * 70 + b"]" * 70, b"[" * 100_000, b"\xff"]
)
def test_json_with_tricks_is_refused(text: bytes) -> None:
    """Doubled keys, NaN, depth and broken texts."""
    with pytest.raises(BadFile):
        load_json(text)


@pytest.mark.parametrize(
    "shard",
    ["../../etc/passwd", "/etc/passwd", "C:\\x.safetensors", "a/b.safetensors", "x.bin", "", 7],
)
def test_an_index_names_plain_shards_only(shard: object) -> None:
    """What would lead out of the directory is refused (as transformers does not)."""
    with pytest.raises(BadFile):
        shards(json.dumps({"weight_map": {"a": shard}}).encode())


def test_shards_are_named_once(tmp_path: Path) -> None:
    """Sorted, without doubles."""
    names = {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}

    assert shards(json.dumps({"weight_map": names}).encode()) == (
        "m-1.safetensors",
        "m-2.safetensors",
    )


@pytest.mark.parametrize(
    "more",
    [
        {"auto_map": {"AutoModel": "evil--x"}},
        {"trust_remote_code": True},
        {"text_config": {"_attn_implementation_internal": "owner/kernel"}},
        {"quantization_config": {"quant_method": "gptq"}},
        {"model_type": "llama"},
    ],
)
def test_a_config_that_would_run_code_is_refused(more: dict[str, Any]) -> None:
    """Keys that made libraries load code, other architectures, other quantizations."""
    with pytest.raises(BadFile):
        check_config({"model_type": "gemma4", "text_config": {}} | more)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.safetensors", True),
        ("gemma-4-E4B-it-Q4_0.gguf", True),
        ("config.json", True),
        ("chat_template.jinja", True),
        ("pytorch_model.bin", False),
        ("modeling_gemma.py", False),
        ("weights.pkl", False),
        (".hidden.safetensors", False),
        ("a/b.safetensors", False),
        ("evil.json", False),
        ("x" * 200 + ".gguf", False),
    ],
)
def test_only_weights_and_named_texts_are_wanted(name: str, wanted: bool) -> None:
    """An allow-list: what is not on it is never fetched."""
    assert wanted_file(name) is wanted
