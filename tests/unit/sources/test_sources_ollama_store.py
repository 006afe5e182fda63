"""Models that Ollama keeps, as halves of a pair."""

import hashlib
import json
from pathlib import Path

import pytest

from gemmad.api.errors import BadRequest, ModelNotFound, PullFailed, Unsupported
from gemmad.core import Turn
from gemmad.sources.half import Local
from gemmad.sources.ollama_store import OllamaStore, ollama_root
from gemmad.sources.reference import Reference

PREFIX = "application/vnd.ollama.image."


def write(root: Path, place: str, layers: dict[str, bytes]) -> OllamaStore:
    """A store at `root` with one model of these layers, by the end of their media types."""
    listed = []
    for kind, data in layers.items():
        hexed = hashlib.sha256(data).hexdigest()
        blob = root / "blobs" / f"sha256-{hexed}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        listed.append({"mediaType": PREFIX + kind, "digest": f"sha256:{hexed}", "size": len(data)})
    manifest = root / "manifests" / place
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": listed}))
    return OllamaStore(root)


def test_a_model_with_a_draft_layer_becomes_a_pair(tmp_path: Path) -> None:
    """Weights stay where they are; parameters, system and messages come along."""
    layers = {
        "model": b"weights",
        "draft": b"drafter",
        "projector": b"eyes",
        "params": b'{"temperature": 0.5, "stop": ["x"], "num_gpu": 3}',
        "system": b"Be kind.",
        "messages": b'[{"role": "user", "content": "Hi"}]',
        "template": b"{{ .Prompt }}",
        "license": b"Apache-2.0",
    }
    store = write(tmp_path, "registry.ollama.ai/library/gemma4/e4b", layers)

    half = store.target(Reference.parse("ollama:gemma4:e4b"))

    assert {(file.kind, file.name) for file in half.files} == {
        ("target", "model.gguf"),
        ("projector", "projector.gguf"),
    }
    assert half.drafter is not None
    [draft] = half.drafter.files
    assert isinstance(draft.bytes, Local)
    assert draft.bytes.path.read_bytes() == b"drafter"
    assert half.parameters == {"temperature": 0.5, "stop": ["x"]}
    assert (half.system, half.messages) == ("Be kind.", (Turn("user", "Hi"),))
    assert "num_gpu" in half.notes[1]
    assert "template" in half.notes[0]


def test_names_are_those_ollama_shows(tmp_path: Path) -> None:
    """The default host and namespace are left out."""
    write(tmp_path, "registry.ollama.ai/library/gemma4/e4b", {"model": b"a"})
    write(tmp_path, "registry.ollama.ai/someone/tuned/latest", {"model": b"b"})
    store = write(tmp_path, "hf.co/owner/repo/Q4_0", {"model": b"c"})

    assert store.names() == ["gemma4:e4b", "hf.co/owner/repo:Q4_0", "someone/tuned:latest"]
    for name in store.names():
        assert store.target(Reference.parse(f"ollama:{name}")).files


def test_a_store_that_is_not_there_is_an_error_without_its_path(tmp_path: Path) -> None:
    """Not an import of nothing that succeeds."""
    with pytest.raises(ModelNotFound, match="--store") as caught:
        OllamaStore(tmp_path / "models").names()

    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("place", ["../../etc:passwd", "a/../b", "gemma4:../x", "", "a/b/c/d/e"])
def test_a_name_never_leaves_the_store(tmp_path: Path, place: str) -> None:
    """Dots, empty parts and too many parts are refused before any file is touched."""
    with pytest.raises(BadRequest):
        OllamaStore(tmp_path).target(Reference("ollama", place))


def test_a_digest_that_is_a_path_is_refused(tmp_path: Path) -> None:
    """What a manifest calls a digest becomes a path only if it is one."""
    store = write(tmp_path, "registry.ollama.ai/library/gemma4/e4b", {"model": b"a"})
    path = tmp_path / "manifests/registry.ollama.ai/library/gemma4/e4b"
    path.write_text(
        json.dumps(
            {"layers": [{"mediaType": PREFIX + "model", "digest": "../../passwd", "size": 1}]}
        )
    )

    with pytest.raises(BadRequest, match="not a digest"):
        store.target(Reference.parse("ollama:gemma4:e4b"))


@pytest.mark.parametrize("kind", ["adapter", "tensor"])
def test_what_cannot_be_run_is_refused(tmp_path: Path, kind: str) -> None:
    """Adapters in GGUF and models of single tensors are told apart and said."""
    layers = {"model": b"a", "adapter": b"b"} if kind == "adapter" else {"tensor": b"c"}
    store = write(tmp_path, "registry.ollama.ai/library/gemma4/e4b", layers)

    with pytest.raises(Unsupported, match=kind if kind == "tensor" else "adapter"):
        store.target(Reference.parse("ollama:gemma4:e4b"))


def test_a_missing_name_is_answered_with_those_there(tmp_path: Path) -> None:
    """The error lists what could be imported; damage is another error."""
    store = write(tmp_path, "registry.ollama.ai/library/gemma4/e4b", {"model": b"a"})

    with pytest.raises(ModelNotFound, match="gemma4:e4b"):
        store.target(Reference.parse("ollama:other"))
    (tmp_path / "manifests/registry.ollama.ai/library/gemma4/e4b").write_text("{")
    with pytest.raises(PullFailed, match="not readable"):
        store.target(Reference.parse("ollama:gemma4:e4b"))


def test_the_store_is_where_ollama_says(tmp_path: Path) -> None:
    """Its own variable counts, as it does for Ollama."""
    assert ollama_root({"OLLAMA_MODELS": str(tmp_path)}) == tmp_path
