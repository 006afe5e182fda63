"""Carried parts come back whole or not at all, and the card states what was measured."""

from pathlib import Path

import pytest

from train import export
from train.card import card


def written(directory: Path) -> Path:
    """Write something to carry, in parts of a few bytes."""
    (directory / "target").mkdir(parents=True)
    (directory / "target/model.safetensors").write_bytes(bytes(range(256)) * 40)
    (directory / "report.json").write_text("{}")
    return directory


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after 4,000 bytes."""
    monkeypatch.setattr(export, "PART_BYTES", 4000)


@pytest.mark.usefixtures("small_parts")
def test_parts_join_to_the_same_files(tmp_path: Path) -> None:
    """The parts hold everything but themselves, also when written again."""
    out = written(tmp_path / "out")
    export.write_parts(out, out / "transport")
    export.write_parts(out, out / "transport")
    export.join_parts(out / "transport", tmp_path / "joined")
    joined = {p.relative_to(tmp_path / "joined") for p in (tmp_path / "joined").rglob("*.*")}

    assert {str(p) for p in joined} == {"target/model.safetensors", "report.json"}
    assert (tmp_path / "joined/target/model.safetensors").read_bytes() == bytes(range(256)) * 40
    assert max(p.stat().st_size for p in (out / "transport").glob("part-*")) == 4000


@pytest.mark.usefixtures("small_parts")
def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    """Nothing is unpacked from a damaged archive."""
    out = written(tmp_path / "out")
    export.write_parts(out, tmp_path / "parts")
    (tmp_path / "parts/part-01").write_bytes(b"noise")
    with pytest.raises(ValueError, match="damaged: part-01"):
        export.join_parts(tmp_path / "parts", tmp_path / "joined")

    assert not (tmp_path / "joined").exists()


def test_the_card_says_what_the_model_is_not() -> None:
    """Even before anything was measured."""
    assert "It is not a Google model" in card({})


def test_the_card_shows_the_figures_of_the_report() -> None:
    """Skills out of those asked, and acceptance by position."""
    counts = {"asked": 100, "right": 97, "stopped": 100, "thinking_as_told": 99}
    evaluation = {
        "skills": {"values": {"greedy": {"howto": counts}}},
        "obedience": {"values": {"greedy": {"think on": counts}}},
    }
    figures = {"conditional": [0.8] * 6, "tokens_per_round": {"4": 3.79}}
    text = card({"evaluation": evaluation, "acceptance": {"values": {"greedy": {"all": figures}}}})

    assert "| howto | 97/100 |" in text
    assert "| think on | 99/100 |" in text
    assert "| values | greedy | all | 80 80 80 80 80 80 | 3.79 |" in text
