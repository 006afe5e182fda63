"""Chooses a target's drafter, by wish or by what belongs to it, and checks that the two fit.

1. `none`: no drafter.
2. A reference: that drafter, or an error that names what does not fit.
3. `auto`: what the target's own place offers, else its sibling elsewhere; what does not fit is
   left out, and a note says why.
"""

from typing import NamedTuple

from gemmad.api.errors import ModelNotFound, PairMismatch
from gemmad.recipes.pairing import refusal
from gemmad.recipes.places import Places, reference_of
from gemmad.sources.half import Half, Source, SourceFile
from gemmad.sources.reference import Reference

Files = tuple[SourceFile, ...]

AUTO, NONE = "auto", "none"
NO_DRAFTER = "No drafter: "  # how every note begins that says why there is none


class Chosen(NamedTuple):
    """A drafter, or why there is none."""

    half: Half | None
    note: str | None = None


def choose_drafter(
    places: Places, source: Source, reference: Reference, target: Half, wish: str
) -> Chosen:
    """The drafter of `target`, which `source` gave for `reference`.

    Raises:
        PairMismatch: the named drafter does not fit.
        GemmaError: the named drafter, or the place of a sibling, could not be asked.
    """
    if wish == NONE:  # 1
        return Chosen(None)
    if wish != AUTO:  # 2
        named = named_drafter(places, wish)
        required(target.files, named)
        return Chosen(named)
    found = target.drafter or source.pair_of(reference, target)  # 3
    return fitting(target.files, found) if found else Chosen(None)


def fitting(target: Files, drafter: Half) -> Chosen:
    """The drafter when it fits as far as small files show, else the reason."""
    why = refusal(target, drafter.files)
    return Chosen(None, f"{NO_DRAFTER}{why}") if why else Chosen(drafter)


def required(target: Files, drafter: Half) -> None:
    """A drafter that was asked for fits as far as small files show.

    Raises:
        PairMismatch: it does not.
    """
    if why := refusal(target, drafter.files):
        raise PairMismatch(
            f"This drafter does not belong to the target: {why}",
            fix="Name the target's own drafter.",
        )


def named_drafter(places: Places, text: str) -> Half:
    """The drafter a person named: of a stored name, or at any place.

    Raises:
        GemmaError: there is none, or its place could not be asked.
    """
    reference = reference_of(text)
    source = places.source(reference, stored=True)
    if source is not None:
        return places.known_drafter(reference) or source.drafter(reference)
    described = places.description(reference)
    if described is None:
        raise places.unknown(reference)
    if not isinstance(described.draft, str) or described.draft == NONE:
        raise ModelNotFound(f"model '{reference.name.short}' has no drafter.")
    return named_drafter(places, described.draft)
