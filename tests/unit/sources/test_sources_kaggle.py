"""Models on Kaggle, through its client."""

import sys
import types
from pathlib import Path

import pytest

from gemmad.api.errors import PullFailed
from gemmad.sources.kaggle import KaggleSource
from gemmad.sources.reference import Reference

GEMMA = Reference.parse("kaggle:google/gemma-4/transformers/gemma-4-e2b-it")


def test_without_the_client_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is optional; a person learns its name."""
    monkeypatch.setitem(sys.modules, "kagglehub", None)

    with pytest.raises(PullFailed, match=r"pip install 'gemma-home\[kaggle\]'"):
        KaggleSource().target(GEMMA)


def test_what_the_client_brought_is_described_by_us(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The version is the directory the client keeps it in."""
    version = tmp_path / "3"
    version.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (version / name).write_bytes(b"{}")
    asked: list[str] = []
    client = types.SimpleNamespace(model_download=lambda handle: asked.append(handle) or version)
    monkeypatch.setitem(sys.modules, "kagglehub", client)

    half = KaggleSource().target(GEMMA)

    assert asked == ["google/gemma-4/transformers/gemma-4-e2b-it"]
    assert half.origin.revision == "3"
    assert {file.name for file in half.files} >= {"config.json", "model.safetensors"}


def test_a_client_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises becomes an error with the name in it."""

    def refuse(_handle: str) -> str:
        raise RuntimeError("403")

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(model_download=refuse))

    with pytest.raises(PullFailed, match="google/gemma-4"):
        KaggleSource().target(GEMMA)
