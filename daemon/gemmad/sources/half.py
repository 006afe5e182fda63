"""What a source offers: one half of a pair, file by file, and where each file's bytes are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from gemmad.core import FileEntry, Origin, Turn
from gemmad.sources.reference import Reference

Kind = Literal["target", "drafter", "projector", "adapter", "document"]
Parameters = Mapping[str, bool | int | float | str | list[str]]


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes in hand: a small file, verified by the source."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Local:
    """A file on this machine; it is hashed again when it is taken into the store."""

    path: Path


@dataclass(frozen=True, slots=True)
class Remote:
    """A file behind a URL that serves ranges. `token` goes to the URL's own host and no other."""

    url: str
    token: str | None = field(default=None, repr=False)  # never in a log


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob that the store has already."""


Bytes = Content | Local | Remote | Stored


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a pair: its name in the manifest, what it must be, and where it is."""

    kind: Kind
    name: str  # one part, see core.safe_file_name
    entry: FileEntry
    bytes: Bytes
    elsewhere: tuple[Path, ...] = ()  # copies that other programs keep; tried before `bytes`


@dataclass(frozen=True, slots=True)
class Half:
    """A target (with its projector and documents), or a drafter."""

    files: tuple[SourceFile, ...]
    origin: Origin  # source as the reference's text, revision as a commit or a hash of the files
    licence: str | None = None
    parameters: Parameters = field(default_factory=dict)
    system: str | None = None
    messages: tuple[Turn, ...] = ()
    drafter: "Half | None" = None  # what the same place offers as its drafter
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """One kind of place. All methods but `knows` block and are called in a worker thread."""

    def knows(self, reference: Reference) -> bool:
        """Whether the reference is of this kind, judged by its text alone."""
        ...

    def target(self, reference: Reference) -> Half:
        """The target there, with its drafter when the same place has one.

        Raises:
            ModelNotFound: there is no such thing.
            PullFailed: it cannot be read, or what it says of itself does not verify.
            Unsupported: it holds nothing this program can run.
        """
        ...

    def drafter(self, reference: Reference) -> Half:
        """The drafter there; every file's kind is `drafter`. Errors as of `target`."""
        ...

    def pair_of(self, reference: Reference, target: Half) -> Half | None:
        """The drafter that belongs to `target` but lies elsewhere; None: there is none known.

        Raises:
            PullFailed: the place could not be asked.
        """
        ...
