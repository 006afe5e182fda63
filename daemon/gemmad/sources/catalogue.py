"""The names this program knows by heart: a Modelfile each, and what each takes.

catalogue/<model>/<tag>.Modelfile   FROM and DRAFT repositories, parameters, licence; the first
                                    comment is what lists show of it
catalogue/sizes.toml                bytes by name, rounded: shown before any hub is asked
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemmad.api.modelfile import Description, parse
from gemmad.core import ByteCount, ModelName

_SUFFIX = ".Modelfile"
# Beside the weights a loaded pair takes K/V of a usual context, workspace and the process itself.
_BESIDE_BYTES = 2 << 30


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one name takes, rounded."""

    target_bytes: ByteCount
    drafter_bytes: ByteCount
    weight_bytes: ByteCount  # of the target in memory, which packing on load makes smaller


@dataclass(frozen=True, slots=True)
class Offer:
    """One name that can be pulled, as lists show it."""

    name: ModelName
    about: str
    licence: str
    sizes: Sizes

    @property
    def needed_bytes(self) -> ByteCount:
        """Memory that the loaded pair takes with a usual context, roughly."""
        return ByteCount(self.sizes.weight_bytes + self.sizes.drafter_bytes + _BESIDE_BYTES)


class Catalogue:
    """The names of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, name: ModelName) -> Description | None:
        """What `name` is made of; None for a name that is not here."""
        key = name.key
        if len(key.parts) != 1:
            return None
        path = self._directory / key.parts[0] / f"{key.tag}{_SUFFIX}"
        return parse(path.read_text(encoding="utf-8")) if path.is_file() else None

    def all(self) -> list[Offer]:
        """Every name, small ones first."""
        sizes = self._sizes()
        offers = [self._offer(path, sizes) for path in self._directory.glob(f"*/*{_SUFFIX}")]
        return sorted(offers, key=lambda offer: (offer.sizes.target_bytes, str(offer.name)))

    def _offer(self, path: Path, sizes: dict[str, Sizes]) -> Offer:
        name = ModelName((path.parent.name,), path.name.removesuffix(_SUFFIX))
        text = path.read_text(encoding="utf-8")
        about = text.splitlines()[0].lstrip("# ")
        return Offer(name, about, " ".join(parse(text).licences), sizes[str(name)])

    def _sizes(self) -> dict[str, Sizes]:
        text = (self._directory / "sizes.toml").read_text(encoding="utf-8")
        return msgspec.convert(tomllib.loads(text), dict[str, Sizes])
