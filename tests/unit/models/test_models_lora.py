"""A LoRA is merged exactly, whatever its names; what is no plain LoRA of this model is refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.config import TargetConfig
from gemmarunner.models.loader import load_target
from gemmarunner.models.lora import ACCEPTANCE_NOTE, AdaptedTake, Delta, adaptable, read_adapter
from gemmarunner.quant.formats import Format, Packed, quantize
from tests.fakes.gguf_pairs import Writing, write_gguf
from tests.fakes.tiny_models import checkpoint_files
from tests.unit.models.test_models_gguf import twin_of

IDS = torch.arange(20)
PREFIXES = ("base_model.model.model.", "base_model.model.model.language_model.", "model.")
PLAIN: dict[str, object] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}


def adapter(
    into: Path,
    shapes: dict[str, tuple[int, int]],
    prefix: str = PREFIXES[0],
    rank: int = 4,
    **config: object,
) -> dict[str, Path]:
    """An adapter of random matrices for these modules."""
    into.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for module, (rows, columns) in shapes.items():
        name = f"{prefix}{module}.lora_"
        tensors[name + "A.weight"] = torch.randn(rank, columns, generator=generator) * 0.1
        tensors[name + "B.weight"] = torch.randn(rows, rank, generator=generator) * 0.1
    save_file(tensors, into / "adapter_model.safetensors")
    (into / "adapter_config.json").write_text(json.dumps(PLAIN | config))
    return checkpoint_files(into)


def some(config: TargetConfig) -> dict[str, tuple[int, int]]:
    """A matrix of each kind in the first layer."""
    return {name: s for name, s in adaptable(config).items() if name.startswith("layers.0.")}


def merged(source: Path, files: dict[str, Path], scaling: float, into: Path) -> Path:
    """The checkpoint with the adapter added by hand."""
    tensors = load_file(source / "model.safetensors")
    halves = load_file(files["adapter_model.safetensors"])
    for name in [n for n in halves if n.endswith("lora_A.weight")]:
        target = "model.layers." + name.split("layers.")[1].replace("lora_A.weight", "weight")
        delta = halves[name.replace("lora_A", "lora_B")] @ halves[name]
        tensors[target] = (tensors[target].float() + scaling * delta).to(tensors[target].dtype)
    into.mkdir()
    save_file(tensors, into / "model.safetensors")
    (into / "config.json").write_text((source / "config.json").read_text())
    return into


def logits(
    target_files: dict[str, Path], given: dict[str, Path] | None, notes: list[str]
) -> Tensor:
    target = load_target(target_files, "cpu", None, adapter=given, notes=notes)
    cache = KVCache(target.config, 32, 32, target.device, target.dtype)
    return target.logits(target.forward(IDS, cache))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_of_the_trainers_prefixes_is_read(pair_of, tmp_path, prefix) -> None:
    """The whole model, its text stack alone, or no wrapper at all may have been trained."""
    config = pair_of("e2b").target.config
    deltas = read_adapter(adapter(tmp_path, some(config), prefix), config)

    assert deltas.keys() == {f"{module}.weight" for module in some(config)}


def test_adapted_target_equals_the_merged_checkpoint(pair_of, tmp_path) -> None:
    """Rank-stabilised: alpha over the rank's root; the user is told of drafts."""
    pair = pair_of("e2b")
    source = pair.oracle.directory / "target"
    files = adapter(tmp_path / "a", some(pair.target.config), lora_alpha=10, use_rslora=True)
    by_hand = merged(source, files, 5.0, tmp_path / "m")
    notes: list[str] = []
    adapted = logits(checkpoint_files(source), files, notes)

    torch.testing.assert_close(adapted, logits(checkpoint_files(by_hand), None, []))
    assert not torch.allclose(adapted, logits(checkpoint_files(source), None, []), atol=1e-3)
    assert notes == [ACCEPTANCE_NOTE]


def test_patterns_give_modules_their_own_rank_and_alpha(pair_of, tmp_path) -> None:
    """As PEFT matches them: by the end of the name."""
    config = pair_of("e2b").target.config
    shapes = {name: adaptable(config)[name] for name in ("layers.0.mlp.down_proj",)}
    patterns = {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {r"mlp\.down_proj": 5}}
    files = adapter(tmp_path, shapes, rank=2, **patterns)

    assert read_adapter(files, config)["layers.0.mlp.down_proj.weight"].scaling == 2.5


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "IA3"},
        {"bias": "all"},
        {"use_dora": True},
        {"modules_to_save": ["embed_tokens"]},
        {"init_lora_weights": "pissa"},
        {"target_parameters": ["experts.gate_up_proj"]},
        {"fan_in_fan_out": True},
        {"invented_next_year": {"strength": 2}},
        {"r": 0},
        {"lora_alpha": "8"},
    ],
)
def test_other_adapters_are_refused_by_name(pair_of, tmp_path, config) -> None:
    """What would change the numbers in a way not known here is named, never ignored."""
    target = pair_of("e2b").target.config
    files = adapter(tmp_path, some(target), **config)

    with pytest.raises(LoadFailed, match=next(iter(config))):
        read_adapter(files, target)


@pytest.mark.parametrize(
    "module", ["layers.99.mlp.up_proj", "embed_tokens", "vision_tower.encoder.layers.0.mlp.up_proj"]
)
def test_unknown_modules_are_named(pair_of, tmp_path, module) -> None:
    """A layer that is not there, a table, another tower."""
    files = adapter(tmp_path, {module: (8, 8)})

    with pytest.raises(LoadFailed, match=module):
        read_adapter(files, pair_of("e2b").target.config)


def test_wrong_shapes_are_named(pair_of, tmp_path) -> None:
    """An adapter of another size of the family does not fit."""
    files = adapter(tmp_path, {"layers.0.mlp.up_proj": (8, 8)})

    with pytest.raises(LoadFailed, match=r"layers\.0\.mlp\.up_proj\.lora_A has shape"):
        read_adapter(files, pair_of("e2b").target.config)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_missing_file_is_named(pair_of, tmp_path, missing) -> None:
    """Weights in another form, pickled ones too, are not looked for."""
    files = adapter(tmp_path, {"layers.0.mlp.up_proj": (8, 8)})
    del files[missing]

    with pytest.raises(LoadFailed, match=missing):
        read_adapter(files, pair_of("e2b").target.config)


def test_cut_off_file_is_refused(pair_of, tmp_path) -> None:
    """Half an adapter is none."""
    target = pair_of("e2b").target.config
    files = adapter(tmp_path, some(target))
    path = files["adapter_model.safetensors"]
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(LoadFailed, match=r"adapter_model\.safetensors could not be read"):
        read_adapter(files, target)


def test_packed_matrix_is_unpacked_for_its_adapter_alone() -> None:
    """The others stay packed, and the user reads what it costs."""
    weight = torch.linspace(-1, 1, 4 * 64).view(4, 64)
    packed = quantize(weight, Format.Q8_0)

    class Given:
        def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
            raise AssertionError(name)

        def matrix(self, name: str, shape: tuple[int, int]) -> Packed:
            return packed

        def matrices(self, name: str, shape: tuple[int, int, int]) -> Iterator[Packed]:
            raise AssertionError(name)

        table = matrix

    delta = Delta(torch.ones(1, 64), torch.ones(4, 1), 0.5)
    notes: list[str] = []
    take = AdaptedTake(Given(), {"a.weight": delta}, torch.bfloat16, notes)

    expected = (packed.dequantized(torch.float32) + 0.5).bfloat16()
    assert torch.equal(take.matrix("a.weight", (4, 64)), expected)
    assert take.matrix("b.weight", (4, 64)) is packed
    assert len(notes) == 2


def test_adapter_on_a_packed_gguf_is_its_unpacked_twins(pair_of, tmp_path) -> None:
    """What it changes is unpacked exactly; the rest stays packed, to the rounding of bytes."""
    pair = pair_of("31b")
    packed_file = tmp_path / "m.gguf"
    source = pair.oracle.directory / "target"
    packed_files = write_gguf(source, packed_file, Writing(kind=Kind.Q8_0))
    given = adapter(tmp_path / "a", some(pair.target.config))
    twin_of(packed_file, tmp_path)
    notes: list[str] = []
    found, twin, plain = (
        logits_in_float32(files, used, told)
        for files, used, told in (
            (packed_files, given, notes),
            ({"twin.gguf": tmp_path / "twin.gguf"}, given, []),
            (packed_files, None, []),
        )
    )

    assert (found - twin).norm() < 0.05 * twin.norm()
    assert (found - plain).norm() > 0.1 * twin.norm()
    assert ACCEPTANCE_NOTE in notes


def logits_in_float32(
    target_files: dict[str, Path], given: dict[str, Path] | None, notes: list[str]
) -> Tensor:
    target = load_target(target_files, "cpu", torch.float32, adapter=given, notes=notes)
    cache = KVCache(target.config, 32, 32, target.device, target.dtype)
    return target.logits(target.forward(IDS, cache))


def test_quantize_of_a_packed_gguf_is_told(pair_of, tmp_path) -> None:
    """Its weights are kept, and the user reads why nothing changed."""
    source = pair_of("31b").oracle.directory / "target"
    files = write_gguf(source, tmp_path / "m.gguf", Writing(kind=Kind.Q4_0))
    notes: list[str] = []
    asked, kept = (
        load_target(files, "cpu", torch.float32, None, quantize, notes=told)
        for quantize, told in (("int8", notes), (None, []))
    )
    found, expected = (
        t.logits(t.forward(IDS, KVCache(t.config, 32, 32, t.device, t.dtype)))
        for t in (asked, kept)
    )

    torch.testing.assert_close(found, expected)
    assert any("quantized already" in note or "are unpacked" in note for note in notes)
