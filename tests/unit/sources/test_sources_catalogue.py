"""The names known by heart."""

from pathlib import Path

import pytest

import gemmamodelfiles
from gemmad.api.modelfile import Description
from gemmad.core import ModelName
from gemmad.sources.catalogue import Catalogue, Offer
from gemmad.sources.reference import Reference

CATALOGUE = Catalogue(Path(gemmamodelfiles.__path__[0]) / "catalogue")
SIZES = ("e2b", "e4b", "12b", "26b", "31b")


def description(name: str) -> Description:
    """What the catalogue says of `name`."""
    found = CATALOGUE.find(ModelName.parse(name))
    assert found is not None
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", ["", "-bf16", "-int8", "-q4"])
def test_every_size_has_a_target_and_its_drafter(size: str, variant: str) -> None:
    """Both halves are repositories of the hub, and the drafter is one of the same size."""
    found = description(f"gemma4:{size}{variant}")

    [target] = [Reference.parse(text) for text in found.from_]
    assert isinstance(found.draft, str)
    drafter = Reference.parse(found.draft)
    assert {target.scheme, drafter.scheme} == {"hub"}
    assert f"-{size}-" in target.place.lower().replace("26b-a4b", "26b")
    assert drafter.place.endswith("-assistant")
    assert drafter.place.split("-it")[0] == target.place.split("-it")[0]


def test_every_offer_has_sizes_and_a_licence() -> None:
    """Lists show all names, small ones first, with what they take."""
    offers = CATALOGUE.all()

    assert len(offers) == 21
    assert [offer.sizes.target_bytes for offer in offers] == sorted(
        offer.sizes.target_bytes for offer in offers
    )
    assert all(offer.licence == "Apache-2.0" and len(offer.about) > 10 for offer in offers)
    assert all(offer.needed_bytes > offer.sizes.drafter_bytes for offer in offers)


def test_packed_weights_take_less_memory() -> None:
    """What packing on load saves shows in what a model needs, not in what is fetched."""
    by_name: dict[str, Offer] = {str(offer.name): offer for offer in CATALOGUE.all()}

    plain, packed = by_name["gemma4:e4b"], by_name["gemma4:e4b-int8"]

    assert packed.sizes.target_bytes == plain.sizes.target_bytes
    assert packed.needed_bytes < plain.needed_bytes
    assert description("gemma4:e4b-int8").parameters["quantize"] == "int8"


@pytest.mark.parametrize("name", ["gemma4:none", "other", "someone/gemma4:e4b", "Gemma4:E4B"])
def test_only_its_own_names_are_found(name: str) -> None:
    """Names of others are None; upper and lower case are one name."""
    assert (CATALOGUE.find(ModelName.parse(name)) is not None) == (name == "Gemma4:E4B")
