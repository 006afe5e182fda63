"""Directories and GGUF files of this machine as sources."""

import hashlib
from pathlib import Path

import pytest

from gemmad.api.errors import ModelNotFound
from gemmad.sources.directory import DirectorySource
from gemmad.sources.half import Half, Local
from gemmad.sources.reference import Reference

HF = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "LICENSE": b"free",
    "evil.py": b"import os",
    "pytorch_model.bin": b"pickle",
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """`folder` with these files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def target(path: Path) -> Half:
    """What the source makes of a path."""
    return DirectorySource().target(Reference.parse(str(path)))


def names(half: Half | None) -> set[str]:
    """The files of a half by kind and name."""
    return {f"{file.kind}/{file.name}" for file in half.files} if half else set()


def test_a_directory_gives_model_files_and_nothing_that_runs(tmp_path: Path) -> None:
    """Code and pickles stay where they are; each file is described by its own hash."""
    half = target(write(tmp_path, HF))

    assert {"target/config.json", "target/model.safetensors"} <= names(half)
    assert not {name for name in names(half) if name.endswith((".py", ".bin"))}
    weights = next(file for file in half.files if file.name == "model.safetensors")
    assert weights.entry.digest == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    assert isinstance(weights.bytes, Local)


def test_two_folders_are_a_pair(tmp_path: Path) -> None:
    """`target` and `drafter` beside each other, as an export writes them."""
    write(tmp_path / "target", HF)
    write(tmp_path / "drafter", {"config.json": b"{}", "model.safetensors": b"small"})
    write(tmp_path, {"LICENSE": b"free"})

    half = target(tmp_path)

    assert "document/LICENSE" in names(half)
    assert names(half.drafter) == {"drafter/config.json", "drafter/model.safetensors"}


def test_a_gguf_file_finds_its_drafter_beside_it(tmp_path: Path) -> None:
    """The file named is the target, whatever else lies there; mtp- files are drafters."""
    write(
        tmp_path,
        {
            "gemma-4-E4B-it-Q4_0.gguf": b"a",
            "other-Q8_0.gguf": b"b",
            "mtp-gemma-4-E4B-it.gguf": b"c",
        },
    )

    half = target(tmp_path / "gemma-4-E4B-it-Q4_0.gguf")

    assert names(half) == {"target/gemma-4-E4B-it-Q4_0.gguf"}
    assert names(half.drafter) == {"drafter/mtp-gemma-4-E4B-it.gguf"}


def test_links_are_followed_to_the_files_they_name(tmp_path: Path) -> None:
    """A snapshot of links, as Hugging Face's cache keeps it, is a directory like any other."""
    write(tmp_path / "blobs", {"1": b"{}", "2": b"weights", "3": b"{}"})
    snapshot = write(tmp_path / "snapshot", {})
    for name, blob in zip(
        ("config.json", "model.safetensors", "tokenizer.json"), "123", strict=True
    ):
        (snapshot / name).symlink_to(tmp_path / "blobs" / blob)

    half = target(snapshot)

    weights = next(file for file in half.files if file.name == "model.safetensors")
    assert isinstance(weights.bytes, Local)
    assert weights.bytes.path == tmp_path / "blobs" / "2"


def test_the_revision_changes_with_the_files(tmp_path: Path) -> None:
    """Equal files have an equal revision, wherever they lie."""
    first, second = (target(write(tmp_path / name, HF)) for name in ("a", "b"))
    changed = target(write(tmp_path / "b", {"config.json": b"{ }"}))

    assert first.origin.revision == second.origin.revision != changed.origin.revision


def test_a_path_that_is_no_model_is_not_found(tmp_path: Path) -> None:
    """Neither a missing path nor a file of another kind."""
    with pytest.raises(ModelNotFound):
        target(tmp_path / "missing")
    with pytest.raises(ModelNotFound):
        target(write(tmp_path, {"a.zip": b"PK"}) / "a.zip")
