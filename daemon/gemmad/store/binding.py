"""Which blobs must stay: those that a name binds, and those that a pull has pinned."""

from collections.abc import Collection

from gemmad.api.errors import StoreBroken
from gemmad.core import Digest
from gemmad.store.manifests import Broken, Manifests


class Bindings:
    """What a store's names bind, read from the disk at every call. Callers keep writers out."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self.pins: list[Collection[Digest]] = []

    def all(self) -> frozenset[Digest]:
        """Every blob that must stay.

        Raises:
            StoreBroken: a manifest is damaged, so what it binds is unknown.
        """
        bound: set[Digest] = set().union(*self.pins)
        for found in self._manifests.all():
            if isinstance(found, Broken):
                raise StoreBroken(
                    f"Nothing was removed: model '{found.name.short}' is broken, so which files it "
                    "needs is not known.",
                    fix=f"Pull it again or remove it: gemma rm {found.name.short}",
                )
            bound |= found.digests
        return frozenset(bound)

    def needed(self, candidates: frozenset[Digest]) -> frozenset[Digest]:
        """Those that must stay, of `candidates` at least."""
        named: set[Digest] = set().union(*self.pins)
        for found in self._manifests.all():
            if isinstance(found, Broken):
                return candidates  # it may bind any blob: removing one could make it unrepairable
            named |= found.digests
        return frozenset(named)
