"""Shapes read out of files: a repository's and GGUF, whole, split and damaged."""

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind

from gemmad.formats.limits import BadFile
from gemmad.memory.files import hf_facts, hf_shape, read_half, read_shape
from gemmad.memory.fused import target_bytes
from gemmad.memory.roles import role_of
from gemmad.memory.shapes import Tensor
from gemmad.wire import PairFiles
from tests.bench import shapes
from tests.fakes import tiny_models
from tests.fakes.gguf_pairs import Writing, write_gguf


def files_of(directory: Path) -> dict[str, str]:
    """By name."""
    return {path.name: str(path) for path in directory.iterdir()}


def test_the_built_in_pair_is_read():
    """Every weight of it, and nothing twice."""
    files = PairFiles(
        target=files_of(shapes.NANO / "target"), drafter=files_of(shapes.NANO / "drafter")
    )
    pair = read_shape(files)
    stored = (shapes.NANO / "target" / "model.safetensors").stat().st_size

    assert pair.target.elements * 2 == pytest.approx(stored, rel=0.01)
    assert pair.drafter is not None
    assert pair.target.context_length == shapes.target_json("nano")["max_position_embeddings"]


def test_a_drafter_that_cannot_be_read_is_left_out(tmp_path):
    """The runner serves the target alone, too."""
    (tmp_path / "config.json").write_text("{}")
    target = files_of(shapes.NANO / "target")
    pair = read_shape(PairFiles(target=target, drafter=files_of(tmp_path)))
    assert pair.drafter is None


def test_damaged_files_are_told(tmp_path):
    """Never another error."""
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2}')
    with pytest.raises(BadFile):
        read_half({"config.json": tmp_path / "config.json"})
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 99}')
    files = {p.name: p for p in (shapes.NANO / "target").iterdir()}
    with pytest.raises(BadFile, match="layers"):
        read_half(files | {"config.json": tmp_path / "config.json"})


@pytest.mark.parametrize("how", [
    Writing(), Writing(fused_qkv=True), Writing(parts=3), Writing(Kind.Q8_0),
])  # fmt: skip
def test_gguf_has_the_shape_of_its_checkpoint(tmp_path, how):
    """Layers, widths and owners, in every layout that writers use."""
    pair = tiny_models.e2b(tmp_path)
    checkpoint = tmp_path / "target"
    assert pair.directory == tmp_path
    expected = read_half({p.name: p for p in checkpoint.iterdir()})
    found = read_half(write_gguf(checkpoint, tmp_path / "model.gguf", how))

    assert found.layers == expected.layers
    assert (found.hidden, found.vocab, found.window) == (
        expected.hidden, expected.vocab, expected.window,
    )  # fmt: skip
    assert (found.ple_dim, found.first_shared) == (expected.ple_dim, expected.first_shared)
    assert found.is_gguf


def compressed(bits: int) -> list[Tensor]:
    """A layer's matrices, packed in words."""

    def packed(name: str, rows: int, columns: int) -> list[Tensor]:
        base = f"model.language_model.layers.0.{name}.weight"
        return [
            Tensor(f"{base}_packed", "I32", (rows, columns * bits // 32)),
            Tensor(f"{base}_scale", "BF16", (rows, columns // 32)),
            Tensor(f"{base}_shape", "I64", (2,)),
        ]

    return [
        Tensor("model.language_model.embed_tokens.weight", "BF16", (1000, 256)),
        Tensor("model.vision_tower.encoder.layers.0.self_attn.q_proj.weight", "BF16", (64, 64)),
        *packed("self_attn.q_proj", 512, 256), *packed("self_attn.k_proj", 256, 256),
        *packed("self_attn.v_proj", 256, 256), *packed("self_attn.o_proj", 256, 512),
        *packed("mlp.gate_proj", 1024, 256), *packed("mlp.up_proj", 1024, 256),
        *packed("mlp.down_proj", 256, 1024),
    ]  # fmt: skip


@pytest.mark.parametrize(("bits", "kind"), [(4, "Q4_0"), (8, "Q8_0")])
def test_compressed_tensors_stay_packed(bits, kind):
    """As the runner keeps them; towers are apart."""
    group = {"weights": {"num_bits": bits}}
    config = {
        "num_hidden_layers": 1,
        "quantization_config": {"config_groups": {"group_0": group}},
    }
    shape = hf_shape(config, compressed(bits), is_drafter=False)

    assert {m.kind for m in shape.of("qkv", "gate_up", "down")} == {kind}
    assert shape.media_bytes == 64 * 64 * 2
    assert shape.layers[0].kv_width == 256
    plain = 1000 * 256 * 2
    weights = (1024 + 512 + 2048 + 1024) * 256 * bits // 8
    assert target_bytes(shape, None) == pytest.approx(
        plain + weights * (1 + 2 / 4 / bits), rel=0.02
    )


def test_a_config_without_kinds_has_every_sixth_layer_full():
    """The last one always is."""
    assert hf_facts({"num_hidden_layers": 8}).kinds == (
        *["sliding"] * 5, "full", "sliding", "full",
    )  # fmt: skip
    assert hf_facts({"num_hidden_layers": 1, "model_type": "gemma4_unified_text"}).window == 1024


@pytest.mark.parametrize(("name", "role"), [
    ("model.language_model.layers.3.self_attn.q_proj.weight", "qkv"),
    ("blk.3.attn_k.weight", "qkv"), ("blk.3.attn_k_norm.weight", "small"),
    ("layers.1.router.proj.weight", "router"), ("blk.1.proj.weight", "ple_widen"),
    ("layers.1.experts.down_proj", "experts_down"), ("blk.1.ffn_up_exps.weight", "experts_up"),
    ("layers.1.experts.7.gate_proj.weight", "experts_up"), ("blk.1.ffn_down.weight", "down"),
    ("layers.1.experts.7.down_proj.weight", "experts_down"), ("output_norm.weight", "small"),
    ("output.weight", "head"), ("token_embd.weight", "table"), ("model.norm.weight", "small"),
    ("blk.0.nextn.pre_projection.weight", "enter"), ("masked_embd_ordering", "ordering"),
    ("layers.0.layer_scalar", "small"), ("blk.1.ffn_down_exps.scale", "small"),
])  # fmt: skip
def test_names_tell_roles(name, role):
    """In both vocabularies."""
    assert role_of(name) == role
