"""A checkpoint loads whatever its files are called and however it is cut."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gemmad.api.errors import LoadFailed
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models import stored
from gemmarunner.models.checkpoint import INDEX
from gemmarunner.models.loader import load_target
from gemmarunner.models.stored import choose_dtype
from tests.fakes.tiny_models import checkpoint_files

IDS = torch.arange(20)


def rows(files: dict[str, Path], dtype: torch.dtype | None = None) -> torch.Tensor:
    target = load_target(files, "cpu", dtype)
    return target.forward(IDS, KVCache(target.config, 32, 32, target.device, target.dtype))


def as_blobs(files: dict[str, Path], into: Path) -> dict[str, Path]:
    """The same files under names that say nothing."""
    into.mkdir()
    blobs = {}
    for number, (name, path) in enumerate(files.items()):
        blobs[name] = into / f"{number:064x}"
        blobs[name].write_bytes(path.read_bytes())
    return blobs


def sharded(directory: Path, into: Path, prefix: str) -> dict[str, Path]:
    """The checkpoint in two shards, its tensors renamed as in a media checkpoint."""
    into.mkdir()
    tensors = {
        prefix + name.removeprefix("model."): tensor
        for name, tensor in load_file(directory / "model.safetensors").items()
    }
    where = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(tensors)}
    for shard in set(where.values()):
        part = {name: tensor for name, tensor in tensors.items() if where[name] == shard}
        save_file(part, into / shard)
    (into / INDEX).write_text(json.dumps({"weight_map": where}))
    (into / "config.json").write_text((directory / "config.json").read_text())
    return checkpoint_files(into)


def test_blobs_load_by_their_repository_names(e2b_directory, tmp_path) -> None:
    """A blob's own file name means nothing."""
    files = checkpoint_files(e2b_directory / "target")

    assert torch.equal(rows(files), rows(as_blobs(files, tmp_path / "blobs")))


def test_sharded_media_checkpoint_loads(e2b_directory, tmp_path) -> None:
    """Two shards, the text stack under model.language_model."""
    files = sharded(e2b_directory / "target", tmp_path / "sharded", "model.language_model.")

    assert torch.equal(rows(checkpoint_files(e2b_directory / "target")), rows(files))


def test_progress_ends_at_the_total(e2b_directory) -> None:
    """Bytes read only grow, and end at the bytes announced."""
    seen: list[tuple[int, int]] = []
    files = checkpoint_files(e2b_directory / "target")
    load_target(files, "cpu", None, lambda done, total: seen.append((done, total)))

    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_missing_shard_is_named(e2b_directory, tmp_path) -> None:
    """The reader learns which file to fetch."""
    files = sharded(e2b_directory / "target", tmp_path / "sharded", "model.")
    del files["model-1.safetensors"]

    with pytest.raises(LoadFailed, match=r"no file model-1\.safetensors"):
        load_target(files, "cpu")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", b"{", "config.json is not JSON"),
        ("model.safetensors", b"not tensors at all", "model.safetensors could not be read"),
    ],
)
def test_damaged_file_is_named(e2b_directory, tmp_path, file, content, words) -> None:
    """Damage is an error for the reader, not a stack trace."""
    files = as_blobs(checkpoint_files(e2b_directory / "target"), tmp_path / "blobs")
    files[file].write_bytes(content)

    with pytest.raises(LoadFailed, match=words):
        load_target(files, "cpu")


def test_wrong_shape_is_named(e2b_directory, tmp_path) -> None:
    """config.json of one revision, weights of another."""
    files = as_blobs(checkpoint_files(e2b_directory / "target"), tmp_path / "blobs")
    config = json.loads(files["config.json"].read_text())
    files["config.json"].write_text(json.dumps(config | {"intermediate_size": 100}))

    with pytest.raises(LoadFailed, match=r"mlp\.gate_proj\.weight has shape \(96, 64\)"):
        load_target(files, "cpu")


GIB = 2**30


@pytest.mark.parametrize(
    ("device", "fast", "halves", "weights", "free", "expected"),
    [
        ("cuda:0", False, True, 8 * GIB, 16 * GIB, torch.bfloat16),
        ("cuda:0", False, True, GIB // 32, 16 * GIB, torch.float32),
        ("cpu", False, False, 1 * GIB, 16 * GIB, torch.float32),
        ("cpu", False, False, 8 * GIB, 16 * GIB, torch.bfloat16),
        ("cpu", False, True, 8 * GIB, 16 * GIB, torch.float32),
        ("cpu", True, True, 8 * GIB, 64 * GIB, torch.bfloat16),
        ("cpu", True, True, GIB // 32, 64 * GIB, torch.float32),
    ],
)
def test_dtype_suits_the_machine(
    monkeypatch, device, fast, halves, weights, free, expected
) -> None:
    """Float32 where bf16 is emulated and it fits, or where the model is small."""
    monkeypatch.setattr(stored, "fast_bf16", lambda: fast)
    monkeypatch.setattr(stored, "packs_half", lambda: halves)
    monkeypatch.setattr(stored, "library", lambda: None)

    assert choose_dtype(device, torch.bfloat16, weights, free) == expected


def test_native_kernels_want_float32_activations(monkeypatch) -> None:
    """Also where bf16 is fast: they keep its weights as they are, and rows independent."""
    monkeypatch.setattr(stored, "fast_bf16", lambda: True)
    monkeypatch.setattr(stored, "packs_half", lambda: True)
    monkeypatch.setattr(stored, "library", object)

    for free in (64 * GIB, 9 * GIB):  # a packed file counts as what it would be unpacked
        assert choose_dtype("cpu", torch.bfloat16, 8 * GIB, free) == torch.float32
