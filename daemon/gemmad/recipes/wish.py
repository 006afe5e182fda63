"""What a person asks for beside the place: the drafter, and what is put over a model's files."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gemmad.core import FileEntry, Turn
from gemmad.sources.half import Parameters
from gemmad.sources.reference import Reference


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pull is asked for."""

    draft: str | None = None  # auto, none, or a reference; None: as when it was pulled before
    parameters: Parameters = field(default_factory=dict)  # quantize, draft_quantize
    revision: str | None = None  # the commit of a repair; None: what the reference says


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is put over a model's files; None and empty: as the model has it."""

    parameters: Parameters = field(default_factory=dict)
    system: str | None = None
    template: str | None = None
    licence: str | None = None
    messages: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Creation:
    """A name to be made: of a reference or of uploaded files, and what is put over them."""

    base: Reference | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)  # of the target, when no base
    draft: str | None = None  # none, or a reference; None: the base's own
    draft_files: Mapping[str, FileEntry] = field(default_factory=dict)
    adapter: Reference | None = None
    adapter_files: Mapping[str, FileEntry] = field(default_factory=dict)
    overlay: Overlay = Overlay()
