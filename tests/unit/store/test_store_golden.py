"""Stores as earlier versions left them, kept as files: today's code opens, lists and checks them.

golden/format1 was written by the first version (manifests of schema 1, no FORMAT), golden/format2
by the one that introduced journals. A checkout keeps neither times nor modes nor empty directories,
as a copied store does not either.
"""

import shutil
from pathlib import Path

import pytest

from gemmad.api.errors import StoreBroken
from gemmad.core import Manifest, ModelName
from gemmad.store.layout import FORMAT
from gemmad.store.store import Store
from tests.fakes.store_scenes import check_invariants, put

GOLDEN = Path(__file__).parent / "golden"
FORMATS = sorted(path.name for path in GOLDEN.iterdir())
NAMES = {"gemma4:e4b", "Team/Copy:v1", "hf.co/google/gemma-4-test:q4"}


@pytest.fixture
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A store of that format."""
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / "store"))


def files(root: Path) -> dict[Path, bytes]:
    """Every file and what is in it."""
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_every_format_has_its_golden_store() -> None:
    """Who raises the number adds one."""
    assert [f"format{number}" for number in range(1, FORMAT + 1)] == FORMATS


@pytest.mark.parametrize("root", FORMATS, indirect=True)
def test_an_old_store_keeps_every_name(root: Path) -> None:
    """It is listed, verified, and served whole; the pair's two halves are there."""
    before = files(root)

    assert check_invariants(root) == NAMES

    store = Store(root)
    assert all(verdict.ok for verdict in store.verify())
    pair = store.pair_files(store.get(ModelName.parse("gemma4:e4b")))
    assert Path(pair.target["model.safetensors"]).read_bytes() == b"target weights"
    assert Path((pair.drafter or {})["model.safetensors"]).read_bytes() == b"drafter weights"
    assert before.items() <= files(root).items()  # a migration adds and never deletes
    assert (root / "FORMAT").read_text() == f"{FORMAT}\n"


@pytest.mark.parametrize("root", FORMATS, indirect=True)
def test_an_old_store_can_be_changed(root: Path) -> None:
    """Names come and go, garbage is found, unfinished downloads are removed when asked."""
    store = Store(root, clock=lambda: 4e9)
    put(store, "new", b"new weights", b"another target")
    store.delete(ModelName.parse("hf.co/google/gemma-4-test:q4"))
    store.delete(ModelName.parse("team/copy:v1"))
    store.remove_partials()

    assert store.gc(dry_run=False, min_age_s=0).blobs == ()
    assert check_invariants(root) == {"gemma4:e4b", "new:latest"}
    assert not [*(root / "ingest").iterdir()]


@pytest.mark.parametrize("root", ["format2"], indirect=True)
def test_a_download_that_an_old_version_began_goes_on(root: Path) -> None:
    """What its journal says is believed once it was checked."""
    [facts] = Store(root).partials()
    assert (facts.size, facts.completed) == (72, 32)


@pytest.mark.parametrize("root", FORMATS, indirect=True)
@pytest.mark.parametrize("said", [f"{FORMAT + 1}\n", "999999", "", "two", "-1", "2 2", "\0" * 9])
def test_a_store_of_another_format_is_refused_and_untouched(root: Path, said: str) -> None:
    """A newer version's, or one whose number is damaged: the error says what to do."""
    (root / "FORMAT").write_text(said)
    before, rooms = files(root), sorted(path.name for path in root.iterdir())

    with pytest.raises(StoreBroken) as refusal:
        Store(root)

    assert "format" in refusal.value.message.lower()
    assert refusal.value.fix
    assert files(root) == before
    assert sorted(path.name for path in root.iterdir()) == rooms


@pytest.mark.parametrize("root", ["format1"], indirect=True)
def test_a_migrated_store_is_still_one_for_the_version_that_wrote_it(root: Path) -> None:
    """It finds its three rooms as it left them: a way back exists."""
    before = files(root)
    sound = [found for found in Store(root).all() if isinstance(found, Manifest)]
    assert {manifest.schema for manifest in sound} == {1}
    assert all(files(root)[path] == data for path, data in before.items())
