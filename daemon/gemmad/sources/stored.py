"""Pairs that are in the store already, as a source: `FROM name`, `DRAFT name`; nothing is moved."""

from collections.abc import Callable, Iterable, Mapping

from gemmad.api.errors import GemmaError, Unsupported
from gemmad.core import FileEntry, Manifest, ModelName, Origin
from gemmad.sources.half import Half, Kind, SourceFile, Stored
from gemmad.sources.reference import Reference


class StoredSource:
    """The names of the store; `get` is the store's."""

    def __init__(self, get: Callable[[ModelName], Manifest]) -> None:
        self._get = get

    def knows(self, reference: Reference) -> bool:
        """Whether the reference is a name that the store has and can read."""
        if reference.scheme not in ("name", "hub") or reference.revision:
            return False
        try:
            self._get(reference.name)
        except GemmaError:
            return False
        return True

    def target(self, reference: Reference) -> Half:
        """The pair of that name, with all that was put over its files.

        Raises:
            ModelNotFound: there is no such name.
            StoreBroken: its manifest is damaged.
        """
        return target_half(self._get(reference.name))

    def drafter(self, reference: Reference) -> Half:
        """The drafter of that name; errors as of `target`.

        Raises:
            Unsupported: the name has no drafter.
        """
        found = target_half(self._get(reference.name)).drafter
        if found is None:
            raise Unsupported(
                f"model '{reference.name.short}' has no drafter.",
                fix="Name one that has, or a drafter's repository.",
            )
        return found

    def pair_of(self, _reference: Reference, _target: Half) -> Half | None:
        """None: the drafter lies with the target."""
        return None


def target_half(manifest: Manifest) -> Half:
    """A stored pair as a target with its drafter."""
    drafter = _files("drafter", manifest.drafter)
    return Half(
        files=(
            *_files("target", manifest.target),
            *_files("projector", manifest.projector),
            *_files("adapter", manifest.adapter),
            *_files("document", manifest.documents),
        ),
        origin=manifest.origin,
        licence=manifest.licence,
        parameters=manifest.parameters,
        system=manifest.system,
        messages=manifest.messages,
        drafter=Half(drafter, manifest.drafter_origin or manifest.origin) if drafter else None,
    )


def same_target(manifests: Iterable[Manifest], source: str, revision: str) -> Half | None:
    """The target of that place and commit, when some name has it; nothing that was put over it."""
    for manifest in manifests:
        if _is_at(manifest.origin, source, revision):
            files = (
                *_files("target", manifest.target),
                *_files("projector", manifest.projector),
                *_files("document", manifest.documents),
            )
            return Half(files, manifest.origin, licence=manifest.licence)
    return None


def same_drafter(manifests: Iterable[Manifest], source: str, revision: str) -> Half | None:
    """The drafter of that place and commit, when some name has it."""
    for manifest in manifests:
        origin = manifest.drafter_origin
        if manifest.drafter and origin and _is_at(origin, source, revision):
            return Half(_files("drafter", manifest.drafter), origin)
    return None


def _is_at(origin: Origin, source: str, revision: str) -> bool:
    """Whether the place is `source` at that commit, whichever branch led there."""
    return origin.revision == revision and origin.source.partition("@")[0] == source


def _files(kind: Kind, group: Mapping[str, FileEntry] | None) -> tuple[SourceFile, ...]:
    return tuple(SourceFile(kind, name, entry, Stored()) for name, entry in (group or {}).items())
