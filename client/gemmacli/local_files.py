"""Which of a Modelfile's references are files of this machine, and which files they stand for."""

import re
from dataclasses import dataclass
from pathlib import Path

from gemmad.api.errors import BadRequest

WEIGHTS = (".gguf", ".safetensors")
_NAMED = frozenset(
    (
        *("config.json", "generation_config.json", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
        *("chat_template.json", "preprocessor_config.json", "processor_config.json"),
        *("adapter_config.json", "adapter_model.safetensors.index.json"),
        *("LICENSE", "LICENSE.txt", "LICENSE.md", "README.md"),
    )
)
_PATH = re.compile(r"\.{0,2}[/\\]|~|\.{1,2}$|[A-Za-z]:[/\\]")
_BLOB = re.compile(r"sha256-[0-9a-f]{64}")
_SPLIT = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Place:
    """What one instruction refers to: `paths` on this machine, or `reference` elsewhere."""

    reference: str | None = None
    paths: tuple[Path, ...] = ()

    @property
    def single(self) -> Path | None:
        """The one path that stands for all: the only one, or the first part of a split file."""
        parts = [_SPLIT.fullmatch(path.name) for path in self.paths]
        if len(self.paths) < 2:
            return self.paths[0] if self.paths else None
        found = zip(self.paths, parts, strict=True)
        whole = {(path.parent, part[1], part[2]) for path, part in found if part}
        return min(self.paths) if all(parts) and len(whole) == 1 else None

    @property
    def folder(self) -> Path | None:
        """The directory, when it is one."""
        return self.paths[0] if len(self.paths) == 1 and self.paths[0].is_dir() else None


def resolve(word: str, references: tuple[str, ...], base: Path) -> Place | None:
    """What the references of `word` stand for, relative ones to `base`; None without any.

    Raises:
        BadRequest: a path leads nowhere, or several references are not all files.
    """
    if not references:
        return None
    paths = [_local(word, text, base) for text in references]
    found = tuple(path for path in paths if path is not None)
    if len(found) == len(references):
        return Place(paths=found)
    if len(references) > 1:
        raise BadRequest(
            f"Several {word} lines must name files, but {references[paths.index(None)]!r} is none."
        )
    return Place(reference=references[0])


def model_files(place: Place) -> dict[str, Path]:
    """The files that make up a place, by the names they have in a model.

    Raises:
        BadRequest: there are none, or two have one name.
    """
    folder = place.folder
    chosen = place.paths if folder is None else tuple(filter(_wanted, sorted(folder.iterdir())))
    named = {path.name: path for path in chosen}
    if len(named) < len(chosen):
        raise BadRequest("Two files of the Modelfile have the same name; rename one of them.")
    if not any(path.suffix in WEIGHTS for path in chosen):
        raise BadRequest(f"There are no safetensors or GGUF files in {place.paths[0]}.")
    return named


def _wanted(path: Path) -> bool:
    return path.is_file() and (path.name in _NAMED or path.suffix in WEIGHTS)


def _local(word: str, text: str, base: Path) -> Path | None:
    """The absolute path that `text` means; None when it is a name or a reference."""
    path = Path(base, Path(text).expanduser()).absolute()
    file = text.lower().endswith(WEIGHTS)
    if _BLOB.fullmatch(path.name):
        raise BadRequest(
            f"{word} names a file of Ollama's store.", fix="Use: gemma import ollama NAME"
        )
    if _PATH.match(text) or (file and "/" not in text):
        if path.is_dir() or (path.is_file() and file):
            return path
        why = "no safetensors or GGUF file" if path.exists() else "not there"
        fix = "A relative path starts at the Modelfile's directory."
        raise BadRequest(f"{word} names {text}, which is {why}.", fix=fix)
    if file:  # below this directory, or in a repository: hf.co/OWNER/REPO:FILE.gguf
        return path if path.is_file() else None
    return path if path.is_dir() and any(map(_wanted, path.iterdir())) else None
