"""What a person types to say where a model is: a name, a hub repository, a directory, a store.

gemma4:e4b                                   a name of the catalogue, or of the local store
hf.co/OWNER/REPO[:FILE-OR-QUANT][@REVISION]  a repository of the hub
kaggle:OWNER/MODEL/FRAMEWORK/VARIATION       a model on Kaggle
ollama:NAME                                  a model in Ollama's store on this machine
/path, ./path, ~/path                        a directory or file on this machine
"""

import re
from dataclasses import dataclass
from typing import Literal

from gemmad.api.errors import BadRequest
from gemmad.core import HUB_HOST, ModelName

Scheme = Literal["name", "hub", "kaggle", "ollama", "path"]

_HUB_PREFIXES = (f"{HUB_HOST}/", "https://hf.co/", "huggingface.co/", "https://huggingface.co/")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,119}")
_REPOSITORY_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_KAGGLE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,79}/){3,4}[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a model is. `place` has no variant and no revision: `OWNER/REPO`, a path, a name."""

    scheme: Scheme
    place: str
    variant: str | None = None  # of a hub repository: a file, or a quantization such as Q4_0
    revision: str | None = None  # branch, tag or commit; None: the default branch

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """The reference written in `text`.

        Raises:
            BadRequest: it follows none of the forms.
        """
        if text.startswith(("/", "./", "../", "~", "\\")) or text in (".", "..") or _drive(text):
            return cls("path", text)
        if text.startswith("kaggle:"):
            return _kaggle(text)
        if text.startswith("ollama:"):
            return cls("ollama", text.removeprefix("ollama:"))
        for prefix in _HUB_PREFIXES:
            if text.lower().startswith(prefix):
                return _hub(text[len(prefix) :])
        return cls("name", str(ModelName.parse(text)))

    @property
    def name(self) -> ModelName:
        """What the model is called in the store when nobody says otherwise.

        Raises:
            BadRequest: it cannot be turned into a name; a path never is.
        """
        if self.scheme == "hub":
            tag = (self.variant or "latest").rsplit("/", 1)[-1]
            return ModelName.parse(f"{HUB_HOST}/{self.place}:{tag}")
        if self.scheme == "kaggle":
            _, model, _, *variation = self.place.split("/")
            return ModelName.parse(f"kaggle/{model}:{'-'.join(variation)}")
        if self.scheme == "path":
            raise BadRequest(
                "A path has no name of its own.", fix="Use: gemma create NAME -f Modelfile"
            )
        return ModelName.parse(self.place)

    def __str__(self) -> str:
        prefix = {"hub": f"{HUB_HOST}/", "kaggle": "kaggle:", "ollama": "ollama:"}
        variant = f":{self.variant}" if self.variant else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{prefix.get(self.scheme, '')}{self.place}{variant}{revision}"


def _hub(rest: str) -> Reference:
    path, at, revision = rest.partition("@")
    repository, colon, variant = path.partition(":")
    parts = repository.split("/")
    sound = len(parts) == 2 and all(map(_REPOSITORY_PART.fullmatch, parts))
    sound = sound and (not colon or _plain(_VARIANT, variant))
    if not sound or (at and not _plain(_REVISION, revision)):
        raise BadRequest(
            f"{rest[:200]!r} is not a repository of the hub.",
            fix="Use hf.co/OWNER/REPO[:FILE-OR-QUANT][@REVISION].",
        )
    return Reference("hub", repository, variant or None, revision or None)


def _kaggle(text: str) -> Reference:
    place = text.removeprefix("kaggle:")
    if not _plain(_KAGGLE, place):
        raise BadRequest(
            f"{text[:200]!r} is not a model of Kaggle.",
            fix="Use kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION].",
        )
    return Reference("kaggle", place)


def _plain(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.fullmatch(text) is not None and not any(
        part in ("", ".", "..") for part in text.split("/")
    )


def _drive(text: str) -> bool:
    return _DRIVE.match(text) is not None
