"""All that making one name takes: the files of its halves, and what its manifest will say."""

from dataclasses import dataclass, field

from gemmad.core import FileEntry, Manifest, Origin, Turn
from gemmad.sources.half import Kind, Parameters, SourceFile


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pull or a create brings together; file facts are read once the files are here."""

    files: tuple[SourceFile, ...]
    origin: Origin
    drafter_origin: Origin | None = None
    reference: str = ""  # what a later pull resolves again; empty: the name
    draft: str = "auto"  # auto, none, or the reference of the drafter that was named
    licence: str | None = None
    parameters: Parameters = field(default_factory=dict)
    system: str | None = None
    messages: tuple[Turn, ...] = ()
    notes: tuple[str, ...] = ()
    manifest: Manifest | None = None  # of a repair: it is bound again just as it was

    def group(self, kind: Kind) -> dict[str, FileEntry]:
        """The files of one kind by name."""
        return {file.name: file.entry for file in self.files if file.kind == kind}
