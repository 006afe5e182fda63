"""The built-in pair: a directory shipped with the program, pulled without a network.

nano/target/   config.json, model.safetensors, tokenizer.json, chat_template.jinja, ...
nano/drafter/  config.json, model.safetensors
nano/          LICENSE, README.md
"""

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from gemmad.api.errors import PullFailed
from gemmad.core import ByteCount, Digest, FileEntry, ModelName, Origin, digest_of, safe_file_name
from gemmad.sources import describe
from gemmad.sources.safetensors_header import BadHeader, size_label, weight_facts
from gemmad.sources.source import Kind, Plan, SourceFile

NAME = "nano"
_WEIGHTS = "model.safetensors"
_TARGET_FILES = ("config.json", _WEIGHTS, "tokenizer.json")  # without these it is no target
_DOCUMENTS = ("LICENSE", "README.md")
_SUFFIXES = (".json", ".safetensors", ".jinja", ".model", ".txt")


class BuiltinSource:
    """Serves the one name `nano` from a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def knows(self, name: ModelName) -> bool:
        """Whether `name` is `nano`."""
        return name.key == ModelName((NAME,))

    def plan(self, name: ModelName) -> Plan:
        """What a pull of `nano` copies.

        Raises:
            PullFailed: the installation lacks the pair's files.
        """
        try:
            return self._plan()
        except (OSError, BadHeader, msgspec.MsgspecError) as error:
            raise PullFailed(
                f"The built-in pair '{NAME}' is not whole: {_reason(error)}.",
                fix="Install the program again.",
            ) from error

    def open(self, plan: Plan, file: SourceFile) -> BinaryIO:
        """The content of one file of the plan.

        Raises:
            PullFailed: it cannot be read.
        """
        folder = self._directory if file.kind == "document" else self._directory / file.kind
        try:
            return (folder / file.name).open("rb")
        except OSError as error:
            raise PullFailed(
                f"{file.name} of '{NAME}' cannot be read: {error.strerror}."
            ) from error

    def _plan(self) -> Plan:
        files = tuple(self._files())
        config = self._json("target", "config.json")
        target = weight_facts(self._directory / "target" / _WEIGHTS)
        return Plan(
            files=files,
            origin=Origin(f"builtin:{NAME}", _revision(files)),
            details=describe.details(config, target, self._template()),
            info=describe.model_info(config, target, NAME),
            drafter_parameter_size=self._drafter_size(),
            licence="Apache-2.0",
            parameters=describe.sampling_defaults(self._json("target", "generation_config.json")),
        )

    def _files(self) -> list[SourceFile]:
        missing = [n for n in _TARGET_FILES if not (self._directory / "target" / n).is_file()]
        if missing:
            raise FileNotFoundError(f"target/{missing[0]} is missing")
        found = [*self._group("target"), *self._group("drafter")]
        documents = [self._directory / name for name in _DOCUMENTS]
        return found + [_described("document", path) for path in documents if path.is_file()]

    def _group(self, kind: Kind) -> list[SourceFile]:
        folder = self._directory / kind
        if not folder.is_dir():
            return []
        paths = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
        return [_described(kind, path) for path in paths if safe_file_name(path.name)]

    def _json(self, kind: Kind, name: str) -> dict[str, Any]:
        path = self._directory / kind / name
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.is_file() else {}

    def _template(self) -> str:
        path = self._directory / "target" / "chat_template.jinja"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def _drafter_size(self) -> str | None:
        path = self._directory / "drafter" / _WEIGHTS
        return size_label(weight_facts(path).parameters) if path.is_file() else None


def _described(kind: Kind, path: Path) -> SourceFile:
    with path.open("rb") as file:
        hexed = hashlib.file_digest(file, "sha256").hexdigest()
    entry = FileEntry(Digest(f"sha256:{hexed}"), ByteCount(path.stat().st_size))
    return SourceFile(kind, path.name, entry)


def _revision(files: tuple[SourceFile, ...]) -> str:
    """The built-in pair has no commit: its revision is a hash over its files."""
    lines = [f"{file.kind}/{file.name} {file.entry.digest}" for file in files]
    return digest_of("\n".join(sorted(lines)).encode()).removeprefix("sha256:")[:40]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{Path(error.filename or '').name} cannot be read ({error.strerror})"
    return str(error)
