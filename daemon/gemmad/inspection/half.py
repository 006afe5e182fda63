"""What one half of a pair is, whichever format its files have."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gemmad.core import Digest
from gemmad.formats.architectures import Architecture
from gemmad.formats.limits import BadFile
from gemmad.inspection.inspected import Parameter
from gemmad.inspection.pairing import Shape
from gemmad.inspection.progress import now_reading
from gemmad.inspection.settings import Settings
from gemmad.inspection.weights import WeightFacts

Files = Mapping[str, Path]  # name in the repository -> blob
Format = Literal["safetensors", "gguf"]


class BadPart(BadFile):
    """One file of the pair cannot be used; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class HalfFacts:
    """A target or a drafter."""

    format: Format
    architecture: Architecture
    weights: WeightFacts
    settings: Settings
    shape: Shape
    tokenizer: Digest | None = None
    template: str | None = None
    info: dict[str, object] = field(default_factory=dict)  # beside the settings
    parameters: dict[str, Parameter] = field(default_factory=dict)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """What is refused inside is refused with the file's name.

    Raises:
        BadPart: naming the file.
    """
    now_reading(name)
    try:
        yield
    except BadPart:
        raise
    except BadFile as error:
        raise BadPart(f"{name} cannot be used: {error}.") from error
    except OSError as error:
        raise BadPart(f"{name} cannot be read: {error.strerror or 'the disk failed'}.") from error
