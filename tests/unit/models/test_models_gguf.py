"""A pair runs from GGUF as it runs from safetensors, whatever the writer's layout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from gemmad.api.errors import LoadFailed
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from gemmarunner.models.config import DrafterConfig
from gemmarunner.models.drafter import Drafter
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.models.stored import stored_weights
from gemmarunner.models.target import Target
from gemmarunner.native import library as native_library
from gemmarunner.native.library import library
from tests.fakes import tiny_models
from tests.fakes.gguf_pairs import Writing, random_blocks, write_gguf
from tests.fakes.tiny_models import SHAPES, checkpoint_files

AS_IT_IS = Writing()
IDS = torch.arange(24) * 5 % 128


def logits(target: Target) -> torch.Tensor:
    """What the target thinks of a short text."""
    cache = KVCache(target.config, 32, 32, target.device, target.dtype)
    return target.logits(target.forward(IDS, cache))


def gguf_target(checkpoint: Path, into: Path, how: Writing = AS_IT_IS) -> Target:
    """The checkpoint's target, through GGUF."""
    files = write_gguf(checkpoint, into / "model.gguf", how)
    return load_target(files, "cpu", torch.float32)


def greedy(target: Target, drafter: Drafter, depth: int) -> list[int]:
    """A text grown with drafts of that depth."""
    drafter.bind(target)
    backend = EagerBackend(target, drafter, num_ctx=64)
    sampler = Sampler(Sampling(temperature=0.0), vocab=128)
    text = [3, 4, 5]
    backend.prefill(0, text)
    text = [*text, backend.first(0, text, sampler)]
    while len(text) < 40:
        [new] = backend.launch([RoundPlan(0, text, sampler, depth)]).wait().tokens
        text = text + new
    return text[:40]


def shape_of(config: DrafterConfig) -> DrafterConfig:
    """The configuration but for what says nothing in a drafter, which has no keys of its own."""
    layers = tuple(replace(layer, k_eq_v=False) for layer in config.layers)
    return replace(config, layers=layers)


def assert_same(found: Target, expected: Target) -> None:
    """Logits are equal bit for bit; experts are multiplied out of the mapped file, where what lies
    at another address may be summed in another order.
    """
    close = 1e-5 if expected.config.moe else 0.0
    torch.testing.assert_close(logits(found), logits(expected), atol=close, rtol=close)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_float32_is_exact(pair_of: Callable[..., object], tmp_path: Path, shape: str) -> None:
    """All five sizes: equal configuration, equal logits bit for bit."""
    pair = pair_of(shape)
    found = gguf_target(pair.oracle.directory / "target", tmp_path)

    assert found.config == pair.target.config
    assert_same(found, pair.target)


@pytest.mark.parametrize(
    ("shape", "architecture"),
    [
        ("e2b", "gemma4-assistant"),
        ("12b", "gemma4_assistant"),
        *(
            pytest.param(shape, "gemma4-assistant", marks=pytest.mark.slow)
            for shape in ("e4b", "26b", "31b")
        ),
    ],
)
def test_pair_drafts_the_same(
    pair_of: Callable[..., object], tmp_path: Path, shape: str, architecture: str
) -> None:
    """Equal drafter, equal greedy text with drafting, in both spellings of its architecture."""
    pair = pair_of(shape)
    files = write_gguf(
        pair.oracle.directory / "assistant",
        tmp_path / "mtp-model.gguf",
        Writing(architecture=architecture),
    )
    drafter = load_drafter(files, "cpu", torch.float32)

    assert shape_of(drafter.config) == shape_of(pair.drafter.config)
    assert greedy(pair.target, drafter, 3) == greedy(pair.target, pair.drafter, 3)


def test_drafter_without_clusters_scores_all(e2b_directory: Path, tmp_path: Path) -> None:
    """Most writers leave clusters out: the head is dense, and the text the target's own."""
    files = write_gguf(e2b_directory / "assistant", tmp_path / "mtp.gguf", Writing(centroids=False))
    drafter = load_drafter(files, "cpu", torch.float32)
    target = load_target(checkpoint_files(e2b_directory / "target"), "cpu")

    assert drafter.config.centroid is None
    assert greedy(target, drafter, 3) == greedy(target, drafter, 0)


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ("e4b", Writing(fused_qkv=True)),
        ("26b", Writing(experts_apart=True)),
        ("31b", Writing(parts=3)),
        ("e2b", Writing(extra={"v.patch_embd.weight": (4, 4), "mm.a.fc.weight": (4, 4)})),
    ],
    ids=["fused qkv", "experts apart", "split file", "media tensors"],
)
def test_other_layouts_are_the_same_model(
    pair_of: Callable[..., object], tmp_path: Path, shape: str, how: Writing
) -> None:
    """Rows of one tensor, halves of experts, parts of a file; media tensors are nobody's."""
    pair = pair_of(shape)
    found = gguf_target(pair.oracle.directory / "target", tmp_path, how)

    assert_same(found, pair.target)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16], ids=lambda kind: kind.name)
def test_halves_are_the_rounded_model(e2b_directory: Path, tmp_path: Path, kind: Kind) -> None:
    """Logits are those of the checkpoint whose matrices were rounded before."""
    how = Writing(kind=kind)
    found = gguf_target(e2b_directory / "target", tmp_path, how)
    twin = twin_of(tmp_path / "model.gguf", tmp_path)

    assert stored_weights({"model.gguf": tmp_path / "model.gguf"}).dtype is torch.bfloat16
    assert torch.equal(logits(found), logits(twin))


def test_halves_run_in_float32_where_torch_multiplies(
    e2b_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head as well, which is the table of embeddings: torch widens nothing by itself."""
    monkeypatch.setattr(native_library, "_load", lambda: "switched off")
    files = write_gguf(e2b_directory / "target", tmp_path / "half.gguf", Writing(kind=Kind.BF16))
    target = load_target(files, "cpu", torch.float32)

    assert logits(target).dtype is torch.float32


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair with rows of 256, which every type can pack."""
    directory = tmp_path_factory.mktemp("wide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "HIDDEN", 256)
        SHAPES["e2b"](directory, 0)
    return directory


PACKED = [Kind.Q8_0, Kind.Q4_0, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]
OTHERS = [Kind.Q5_0, Kind.Q4_1, Kind.IQ4_XS, Kind.IQ4_NL]


@pytest.mark.parametrize(
    "kind",
    [Kind.Q4_K, *(pytest.param(k, marks=pytest.mark.slow) for k in PACKED + OTHERS if k != 12)],
    ids=lambda kind: kind.name,
)
def test_packed_pairs_are_their_unpacked_twins(wide: Path, tmp_path: Path, kind: Kind) -> None:
    """Logits agree with the same numbers stored as float32, up to how activations are rounded."""
    found = logits(gguf_target(wide / "target", tmp_path, Writing(kind=kind)))
    twin = logits(twin_of(tmp_path / "model.gguf", tmp_path))
    in_bytes = library() is not None and kind in PACKED

    assert (found - twin).norm() < (0.1 if in_bytes else 0.01) * twin.norm()


def test_a_layer_may_mix_types(wide: Path, tmp_path: Path) -> None:
    """Queries and keys of one type, values of another, as Q4_K_M has them."""
    kinds = {"attn_v.weight": Kind.Q6_K, "ffn_up.weight": Kind.Q8_0}
    found = gguf_target(wide / "target", tmp_path, Writing(kind=Kind.Q4_K, kinds=kinds))
    twin = twin_of(tmp_path / "model.gguf", tmp_path)
    assert (found._native is None) == (library() is None), "one call still runs its layers"

    torch.testing.assert_close(logits(found), logits(twin), atol=0.05, rtol=0.02)


def test_unpacked_types_are_noted(wide: Path, tmp_path: Path) -> None:
    """A type without a kernel runs, and the user is told; one with a kernel is no news."""
    kinds = {"ffn_down.weight": Kind.F32}
    notes: list[str] = []
    for kind in (Kind.Q4_K, Kind.IQ4_XS):
        files = write_gguf(wide / "target", tmp_path / "m.gguf", Writing(kind=kind, kinds=kinds))
        load_target(files, "cpu", torch.float32, notes=notes)

    assert [note for note in notes if "IQ4_XS" in note] == notes
    assert len(notes) == 1


def twin_of(path: Path, into: Path) -> Target:
    """The same numbers as `path`, all stored as float32."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(into / "twin.gguf", "gemma4")
    for name, found in reader.fields.items():
        if name.startswith("gemma4."):
            part = found.contents()
            many = isinstance(part, list)
            add = writer.add_array if many else _adder(writer, part)
            add(name, part)
    for tensor in reader.tensors:
        values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return load_target({"twin.gguf": into / "twin.gguf"}, "cpu", torch.float32)


def _adder(writer: gguf.GGUFWriter, value: object) -> Callable[..., None]:
    return writer.add_uint32 if isinstance(value, int) else writer.add_float32


def test_missing_part_is_told(e2b_directory: Path, tmp_path: Path) -> None:
    """A split model is all of its files."""
    files = write_gguf(e2b_directory / "target", tmp_path / "model.gguf", Writing(parts=3))
    del files["model-00002.gguf"]

    with pytest.raises(LoadFailed, match="not one file or all its parts"):
        load_target(files, "cpu")


def test_other_architectures_are_told(e2b_directory: Path, tmp_path: Path) -> None:
    """A drafter, or another model, is no target."""
    files = write_gguf(e2b_directory / "assistant", tmp_path / "model.gguf")

    with pytest.raises(LoadFailed, match="'gemma4-assistant'; a Gemma 4 target has gemma4"):
        load_target(files, "cpu")


def test_damage_is_told(e2b_directory: Path, tmp_path: Path) -> None:
    """A cut file is named, with what is wrong."""
    files = write_gguf(e2b_directory / "target", tmp_path / "model.gguf")
    whole = files["model.gguf"].read_bytes()
    files["model.gguf"].write_bytes(whole[: len(whole) // 2])

    with pytest.raises(LoadFailed, match=r"model\.gguf could not be read"):
        load_target(files, "cpu")


def test_odd_rope_is_refused(e2b_directory: Path, tmp_path: Path) -> None:
    """Pairs that turn at another speed would need another decoder."""
    files = write_gguf(e2b_directory / "target", tmp_path / "model.gguf")
    data = bytearray(files["model.gguf"].read_bytes())
    at = data.rindex(np.float32(1e30).tobytes())
    data[at : at + 4] = np.float32(7.0).tobytes()
    files["model.gguf"].write_bytes(bytes(data))

    with pytest.raises(LoadFailed, match=r"rope_freqs\.weight is not 16 numbers"):
        load_target(files, "cpu")


def test_random_blocks_have_ordinary_weights() -> None:
    """The fake's own promise: what it makes of a type is no noise beyond float16."""
    for kind in PACKED:
        values = gguf.quants.dequantize(random_blocks(8, 256, kind), kind)

        assert 1e-4 < float(np.abs(values).mean()) < 1
