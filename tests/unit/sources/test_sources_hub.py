"""Repositories of a hub, asked through the real huggingface_hub client."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemmad.api.errors import ModelNotFound, PullFailed, Unsupported
from gemmad.sources.half import Content, Half, Remote
from gemmad.sources.hub import HubSource
from gemmad.sources.hub_client import HubClient
from gemmad.sources.reference import Reference
from tests.fakes.builtin_pair import weights
from tests.fakes.hub.server import FakeHub

TARGET = {"model_type": "gemma4", "text_config": {}}
ASSISTANT = {"model_type": "gemma4_assistant", "text_config": {}}
TOKEN = "hf_canary"
WEIGHTS = weights({"a": [3]})
GEMMA = "google/gemma-4-E4B-it"


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache of whoever runs the tests is not looked at."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with a target and its drafter."""
    with FakeHub() as running:
        running.add(GEMMA, repository(TARGET))
        running.add(f"{GEMMA}-assistant", repository(ASSISTANT))
        yield running


def repository(config: object, **more: bytes) -> dict[str, bytes]:
    """The files of a small repository in Hugging Face's layout."""
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": WEIGHTS,
        "tokenizer.json": b"{}",
        "README.md": b"# card",
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"import os",
        **more,
    }


def source(hub: FakeHub) -> HubSource:
    """The source under test, with a token that must not travel."""
    return HubSource(lambda: HubClient(hub.url, TOKEN, lambda _: None))


def names(half: Half | None) -> set[str]:
    """The files of a half by kind and name."""
    return {f"{file.kind}/{file.name}" for file in half.files} if half else set()


def test_a_repository_is_a_target_at_a_commit(hub: FakeHub) -> None:
    """Small files are in hand, large ones have a hash and an address; nothing that runs."""
    commit = hub.add(GEMMA, repository(TARGET, LICENSE=b"free"))

    half = source(hub).target(Reference.parse(f"hf.co/{GEMMA}"))

    assert names(half) == {
        *("target/config.json", "target/model.safetensors", "target/tokenizer.json"),
        *("document/LICENSE", "document/README.md"),
    }
    by_name = {file.name: file for file in half.files}
    assert isinstance(by_name["config.json"].bytes, Content)
    model = by_name["model.safetensors"]
    assert isinstance(model.bytes, Remote)
    assert commit in model.bytes.url
    assert model.entry.digest == f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"
    assert half.origin.revision == commit
    assert TOKEN not in repr(half)


def test_the_drafter_is_the_repository_beside_it(hub: FakeHub) -> None:
    """NAME-assistant; a repository without one has none."""
    found = source(hub)
    reference = Reference.parse(f"hf.co/{GEMMA}")

    half = found.pair_of(reference, found.target(reference))

    assert names(half) >= {"drafter/config.json", "drafter/model.safetensors"}
    hub.remove(f"{GEMMA}-assistant")
    assert found.pair_of(reference, found.target(reference)) is None


def test_a_qat_target_prefers_the_qat_drafter(hub: FakeHub) -> None:
    """The drafter trained with it comes first, else the plain one."""
    hub.add(f"{GEMMA}-qat-q4_0-gguf", {"gemma-4-E4B-it-Q4_0.gguf": b"GGUF"})
    reference = Reference.parse(f"hf.co/{GEMMA}-qat-q4_0-gguf")
    found = source(hub)

    plain = found.pair_of(reference, found.target(reference))
    hub.add(f"{GEMMA}-qat-q4_0-unquantized-assistant", repository(ASSISTANT))
    matched = found.pair_of(reference, found.target(reference))

    assert plain
    assert plain.origin.source.endswith("E4B-it-assistant")
    assert matched
    assert matched.origin.source.endswith("qat-q4_0-unquantized-assistant")


def test_a_gguf_repository_brings_its_own_drafter(hub: FakeHub) -> None:
    """The quantization chooses the file; drafters and projectors are told apart by name."""
    files = ("E4B-it-Q4_0.gguf", "E4B-it-Q8_0.gguf", "mmproj-BF16.gguf", "mmproj-F32.gguf")
    drafters = ("MTP/E4B-it-Q8_0-MTP.gguf", "MTP/E4B-it-BF16-MTP.gguf")
    hub.add("someone/E4B-GGUF", {name: name.encode() for name in (*files, *drafters)})

    half = source(hub).target(Reference.parse("hf.co/someone/E4B-GGUF:q8_0"))

    assert names(half) == {"target/E4B-it-Q8_0.gguf", "projector/mmproj-BF16.gguf"}
    assert names(half.drafter) == {"drafter/E4B-it-Q8_0-MTP.gguf"}


def test_an_unknown_variant_is_answered_with_those_there(hub: FakeHub) -> None:
    """A person can copy the right one."""
    hub.add("someone/E4B-GGUF", {"E4B-it-Q4_0.gguf": b"a", "E4B-it-Q8_0.gguf": b"b"})

    with pytest.raises(Unsupported, match=r"Q4_0, E4B-it-Q8_0"):
        source(hub).target(Reference.parse("hf.co/someone/E4B-GGUF:Q2_K"))


def test_a_tuned_target_takes_its_base_models_drafter(hub: FakeHub) -> None:
    """The model card names the base; a note says what to expect."""
    hub.add("someone/tuned", repository(TARGET), info={"cardData": {"base_model": GEMMA}})
    reference = Reference.parse("hf.co/someone/tuned")
    found = source(hub)

    half = found.pair_of(reference, found.target(reference))

    assert half is not None
    assert "tuned" in half.notes[0]


def test_halves_are_not_taken_for_one_another(hub: FakeHub) -> None:
    """A drafter alone is no model, and a target is no drafter."""
    with pytest.raises(Unsupported, match=f"gemma pull hf.co/{GEMMA}"):
        source(hub).target(Reference.parse(f"hf.co/{GEMMA}-assistant"))
    with pytest.raises(Unsupported, match="not a drafter"):
        source(hub).drafter(Reference.parse(f"hf.co/{GEMMA}"))


@pytest.mark.parametrize("shard", ["../../etc/passwd", "/etc/passwd", "missing.safetensors"])
def test_an_index_names_only_files_that_are_there(hub: FakeHub, shard: str) -> None:
    """A path in the index, or a shard that is not listed, ends the pull."""
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.add("a/b", repository(TARGET) | {"model.safetensors.index.json": index})

    with pytest.raises(PullFailed):
        source(hub).target(Reference.parse("hf.co/a/b"))


def test_what_is_missing_or_gated_says_what_to_do(hub: FakeHub) -> None:
    """No such repository, no such revision, a licence to accept."""
    hub.add("a/gated", repository(TARGET), gated=True)

    with pytest.raises(ModelNotFound, match="no repository a/missing"):
        source(hub).target(Reference.parse("hf.co/a/missing"))
    with pytest.raises(ModelNotFound, match="revision"):
        source(hub).target(Reference.parse(f"hf.co/{GEMMA}@nowhere"))
    with pytest.raises(PullFailed, match="HF_TOKEN"):
        source(hub).target(Reference.parse("hf.co/a/gated"))


def test_the_token_is_shown_to_the_hub_alone(hub: FakeHub) -> None:
    """Planning asks the hub; whoever else is asked sees no token."""
    found = source(hub)
    found.pair_of(
        Reference.parse(f"hf.co/{GEMMA}"), found.target(Reference.parse(f"hf.co/{GEMMA}"))
    )

    assert hub.tokens_seen("cdn") in ([], set(), ())
    assert any(TOKEN in str(token) for token in hub.tokens_seen("hub"))


def test_a_copy_in_the_cache_is_named(hub: FakeHub, tmp_path: Path) -> None:
    """Any repository's blob of that hash will do."""
    blob = tmp_path / "cache/models--x--y/blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(WEIGHTS)

    half = source(hub).target(Reference.parse(f"hf.co/{GEMMA}"))

    assert next(f for f in half.files if f.name == "model.safetensors").elsewhere == (blob,)


def test_a_search_finds_targets(hub: FakeHub) -> None:
    """Drafters are no models to pull."""
    found = [str(offer.name) for offer in source(hub).search("E4B")]

    assert found == [f"hf.co/{GEMMA}:latest"]


def test_a_search_says_what_a_pull_would_bring(hub: FakeHub) -> None:
    """As the hub tells of safetensors, else as a listing shows; a gated one may stay unknown."""
    pair = {"model.safetensors": weights({"a": [1000]})}
    hub.add(GEMMA, repository(TARGET, **pair))
    hub.add(
        f"{GEMMA}-assistant", repository(ASSISTANT, **{"model.safetensors": weights({"d": [8]})})
    )
    gguf = {
        "gemma-4-Q4_0.gguf": bytes(70),
        "mmproj-BF16.gguf": bytes(7),
        "MTP/Q4_0-MTP.gguf": bytes(9),
    }
    hub.add("someone/gemma-4-E4B-GGUF", gguf)
    hub.misbehave("status", path="/api/models/other*", status=500, times=None)
    hub.add("other/gemma-4-E4B-x", {"x.gguf": b"GGUF"})

    found = {str(offer.name.short): offer.sizes for offer in source(hub).search("E4B")}

    known = {name: (sizes.target_bytes, sizes.drafter_bytes) for name, sizes in found.items()}
    assert known == {
        f"hf.co/{GEMMA}": (2000, 16),
        "hf.co/someone/gemma-4-E4B-GGUF": (77, 9),
        "hf.co/other/gemma-4-E4B-x": (0, 0),
    }
