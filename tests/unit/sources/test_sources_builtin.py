"""The built-in pair as a source."""

from pathlib import Path

import pytest

from gemmad.api.errors import PullFailed, Unsupported
from gemmad.core import digest_of
from gemmad.sources.builtin import BuiltinSource
from gemmad.sources.half import Half, Local
from gemmad.sources.reference import Reference
from tests.fakes.builtin_pair import write_pair

NANO = Reference.parse("nano")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A pair's directory."""
    return write_pair(tmp_path / "nano")


def names(half: Half | None) -> set[str]:
    """The files of a half by kind and name."""
    return {f"{file.kind}/{file.name}" for file in half.files} if half else set()


def test_both_halves_are_offered_with_size_and_digest(pair: Path) -> None:
    """Target, drafter and documents; what is not a model file stays out."""
    (pair / "target" / "notes.py").write_text("print()")

    half = BuiltinSource(pair).target(NANO)

    assert {"target/model.safetensors", "document/LICENSE"} <= names(half)
    assert "drafter/model.safetensors" in names(half.drafter)
    assert "target/notes.py" not in names(half)
    weights = next(file for file in half.files if file.name == "model.safetensors")
    assert isinstance(weights.bytes, Local)
    assert weights.entry.digest == digest_of(weights.bytes.path.read_bytes())
    assert half.origin.source == "builtin:nano"


def test_a_target_without_a_drafter_is_a_pair_of_one(tmp_path: Path) -> None:
    """The drafter is optional; asking for it alone is an error."""
    source = BuiltinSource(write_pair(tmp_path / "nano", drafter=False))

    assert source.target(NANO).drafter is None
    with pytest.raises(Unsupported):
        source.drafter(NANO)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(pair: Path, name: str) -> None:
    """A damaged installation says what is missing."""
    (pair / "target" / name).unlink()

    with pytest.raises(PullFailed, match=name):
        BuiltinSource(pair).target(NANO)


@pytest.mark.parametrize(
    ("text", "known"), [("nano", True), ("NANO:latest", True), ("nano:x", False)]
)
def test_only_nano_is_known(pair: Path, text: str, known: bool) -> None:
    """Other tags and other schemes are others' matter."""
    assert BuiltinSource(pair).knows(Reference.parse(text)) is known
