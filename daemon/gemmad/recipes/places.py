"""Finds who knows a reference: the store, one of the sources, or the catalogue."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from gemmad.api.errors import BadRequest, GemmaError, ModelNotFound
from gemmad.api.modelfile import Description
from gemmad.core import Manifest, ModelName
from gemmad.sources.half import Half, Source
from gemmad.sources.reference import Reference
from gemmad.sources.stored import StoredSource, same_drafter, same_target
from gemmad.store.manifests import Broken

_COMMIT_CHARS = 40


class Names(Protocol):
    """The store, as far as recipes read it."""

    def get(self, name: ModelName) -> Manifest:
        """The manifest of `name`; ModelNotFound or StoreBroken."""
        ...

    def all(self) -> Sequence[Manifest | Broken]:
        """Every name, sound or broken."""
        ...


class Places:
    """Everything a reference can lead to."""

    def __init__(
        self,
        sources: Sequence[Source],
        find: Callable[[ModelName], Description | None],
        names: Names,
    ) -> None:
        self._sources = sources
        self._find = find
        self._names = names
        self._stored = StoredSource(names.get)

    def asking_first(self, source: Source) -> "Places":
        """The same places behind `source`."""
        return Places((source, *self._sources), self._find, self._names)

    def source(self, reference: Reference, *, stored: bool = False) -> Source | None:
        """Who knows the reference; the store's own names only when `stored`."""
        if stored and self._stored.knows(reference):
            return self._stored
        return next((source for source in self._sources if source.knows(reference)), None)

    def description(self, reference: Reference) -> Description | None:
        """What the catalogue says of a name; None for anything else."""
        return self._find(reference.name) if reference.scheme == "name" else None

    def stored(self, reference: Reference) -> Manifest | None:
        """What the store has under the reference's own name, when it can be read."""
        if reference.scheme not in ("name", "hub") or reference.revision:
            return None
        try:
            return self._names.get(reference.name)
        except GemmaError:
            return None

    def known_target(self, reference: Reference) -> Half | None:
        """The target of a repository at a commit, when a pulled name has just these files."""
        if not _at_commit(reference):
            return None
        pulled = (m for m in self._names.all() if isinstance(m, Manifest) and as_pulled(m))
        return same_target(pulled, _place(reference), reference.revision or "")

    def known_drafter(self, reference: Reference) -> Half | None:
        """The drafter of a repository at a commit, when some name has it."""
        if not _at_commit(reference):
            return None
        sound = (m for m in self._names.all() if isinstance(m, Manifest))
        return same_drafter(sound, _place(reference), reference.revision or "")

    def unknown(self, reference: Reference) -> GemmaError:
        """The error for a reference that nobody knows."""
        if (stored := self.stored(reference)) is not None:
            name = ModelName.parse(stored.name).short
            return BadRequest(
                f"model '{name}' was made from files on this machine.",
                fix="Make it again with: gemma create",
            )
        if reference.scheme != "name":
            return BadRequest(f"References such as {str(reference)[:200]!r} cannot be used here.")
        return ModelNotFound(
            f"model '{reference.name.short}' is not in the catalogue.",
            fix="See what is: gemma list --available; a hub's repository is hf.co/OWNER/REPO.",
        )


def _at_commit(reference: Reference) -> bool:
    return reference.scheme == "hub" and len(reference.revision or "") == _COMMIT_CHARS


def _place(reference: Reference) -> str:
    return str(replace(reference, revision=None))


def as_pulled(manifest: Manifest) -> bool:
    """Whether a name is what its reference gives, with nothing put over it by a creation."""
    try:
        reference = Reference.parse(manifest.reference or manifest.name)
        return reference.name.key == ModelName.parse(manifest.name).key
    except BadRequest:
        return False


def reference_of(text: str) -> Reference:
    """The reference in `text`, where the tag `latest` stands for no variant.

    Raises:
        BadRequest: it follows none of the forms.
    """
    reference = Reference.parse(text)
    if reference.scheme == "hub" and (reference.variant or "").lower() == "latest":
        return replace(reference, variant=None)
    return reference
