"""What a source is: it plans a pull (files with sizes and digests) and opens the files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, Protocol

from gemmad.core import Details, FileEntry, Manifest, ModelName, Origin

Kind = Literal["target", "drafter", "document"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file a source can deliver."""

    kind: Kind
    name: str
    entry: FileEntry


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a pull of one name will fetch, and what the manifest will say of it."""

    files: tuple[SourceFile, ...]
    origin: Origin
    details: Details
    info: dict[str, object]
    drafter_parameter_size: str | None = None
    licence: str | None = None
    parameters: dict[str, int | float | str | list[str]] = field(default_factory=dict)
    system: str | None = None

    def manifest(
        self, name: ModelName, created: str, parameters: Mapping[str, str] | None = None
    ) -> Manifest:
        """The manifest of `name` once every file of the plan is in the store.

        `parameters` stand over the source's own.
        """
        target = self._group("target")
        template = target.get("chat_template.jinja")
        return Manifest(
            name=str(name),
            created=created,
            target=target,
            drafter=self._group("drafter") or None,
            drafter_parameter_size=self.drafter_parameter_size,
            documents=self._group("document"),
            tokenizer=target["tokenizer.json"].digest,
            template=template.digest if template else None,
            origin=self.origin,
            licence=self.licence,
            details=self.details,
            parameters=self.parameters | dict(parameters or {}),
            system=self.system,
            info=self.info,
        )

    def _group(self, kind: Kind) -> dict[str, FileEntry]:
        return {file.name: file.entry for file in self.files if file.kind == kind}


class Source(Protocol):
    """One place files come from. `plan` and `open` block and are called in a worker thread."""

    def knows(self, name: ModelName) -> bool:
        """Whether `name` is one of this source's, judged by the name alone."""
        ...

    def plan(self, name: ModelName) -> Plan:
        """What a pull of `name` fetches from here.

        Raises:
            PullFailed: the source cannot be read.
        """
        ...

    def open(self, plan: Plan, file: SourceFile) -> BinaryIO:
        """The content of one file of the plan.

        Raises:
            PullFailed: it cannot be read.
        """
        ...
