"""A pair of GGUF files goes out in Hugging Face's layout, and transformers computes the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file

import gemmamodelfiles
from gemmad.api.errors import BadRequest, WillNotFit
from gemmad.wire import PairFiles
from gemmarunner import export_unpacked
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.export import ExportRequest, export
from gemmarunner.export_unpacked import write_unpacked
from gemmarunner.files import read_eos_ids, read_format, read_tokenizer
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.models.stored import stored_weights
from gemmarunner.models.target import Target
from tests.fakes import tiny_models
from tests.fakes.gguf_pairs import Writing, write_gguf
from tests.fakes.tiny_models import SHAPES, checkpoint_files

NANO = Path(gemmamodelfiles.__path__[0]) / "nano"
IDS = torch.arange(24) * 5 % 128


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny pair of this shape, at most once."""
    made: dict[str, Path] = {}

    def build(shape: str) -> Path:
        if shape not in made:
            made[shape] = tmp_path_factory.mktemp(shape)
            SHAPES[shape](made[shape], 0)
        return made[shape]

    return build


@pytest.fixture(scope="module")
def nano_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano as nano.gguf and mtp-nano.gguf."""
    directory = tmp_path_factory.mktemp("nano")
    halves = {
        half: {name: str(path) for name, path in checkpoint_files(NANO / half).items()}
        for half in ("target", "drafter")
    }
    asked = ExportRequest(
        files=PairFiles(**halves), format="gguf", path=str(directory / "nano.gguf"), name="nano"
    )
    export(asked, lambda line: None)
    return directory


def logits(target: Target, ids: torch.Tensor = IDS) -> torch.Tensor:
    """What the target thinks of a short text."""
    cache = KVCache(target.config, 32, 32, target.device, target.dtype)
    return target.logits(target.forward(ids, cache))


def weights(files: dict[str, Path], into: Path, drafter: bool = False) -> Path:
    """The weights and config.json alone: a tiny pair has no tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        if not drafter:
            patch.setattr(export_unpacked, "_target_texts", config_alone)
        write_unpacked(files, into, lambda done, total: None, is_drafter=drafter)
    return into


def config_alone(files: object, model: object, config: object, dtype: str) -> dict[str, object]:
    """The texts of a target without those about text."""
    return {"config.json": export_unpacked.target_settings(config, {}, dtype)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ("26b", Writing(experts_apart=True)),
        *(
            pytest.param(shape, how, marks=pytest.mark.slow)
            for shape, how in (
                ("e2b", Writing()),
                ("e4b", Writing(fused_qkv=True)),
                ("12b", Writing()),
                ("26b", Writing()),
                ("31b", Writing(parts=3)),
            )
        ),
    ],
    ids=["26b apart", "e2b", "e4b fused", "12b", "26b", "31b parts"],
)
def test_float32_pair_is_the_same_to_us(
    pair_of: Callable[[str], Path], tmp_path: Path, shape: str, how: Writing
) -> None:
    """All five sizes, both layouts of experts, parts: equal configuration, equal logits."""
    source = pair_of(shape) / "target"
    made = weights(write_gguf(source, tmp_path / "m.gguf", how), tmp_path / "hf")
    original, found = (load_target(checkpoint_files(d), "cpu") for d in (source, made))
    stored, expected = (load_file(d / "model.safetensors") for d in (made, source))

    assert found.config == original.config
    assert all(torch.equal(tensor, expected[name]) for name, tensor in stored.items())
    close = 1e-5 if found.config.moe else 0.0  # experts lie at other addresses: sums differ
    torch.testing.assert_close(logits(found), logits(original), atol=close, rtol=close)


@pytest.mark.slow
@pytest.mark.parametrize("shape", list(SHAPES))
def test_transformers_computes_the_same(
    pair_of: Callable[[str], Path], tmp_path: Path, shape: str
) -> None:
    """The library loads what was written, misses nothing, and its logits are ours."""
    from transformers import Gemma4ForCausalLM

    files = write_gguf(pair_of(shape) / "target", tmp_path / "m.gguf")
    made = weights(files, tmp_path / "hf")
    theirs, told = Gemma4ForCausalLM.from_pretrained(made, output_loading_info=True)
    with torch.inference_mode():
        expected = theirs(IDS[None]).logits[0]

    assert {key: found for key, found in told.items() if found} == {}
    found = logits(load_target(files, "cpu", torch.float32))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shape", list(SHAPES))
def test_transformers_loads_the_drafter(
    pair_of: Callable[[str], Path], tmp_path: Path, shape: str
) -> None:
    """With its clusters where it has them; nothing is missing and nothing is left over."""
    from transformers import Gemma4AssistantForCausalLM

    files = write_gguf(pair_of(shape) / "assistant", tmp_path / "d.gguf")
    made = weights(files, tmp_path / "hf", drafter=True)
    model, told = Gemma4AssistantForCausalLM.from_pretrained(made, output_loading_info=True)
    ours = load_drafter(checkpoint_files(made), "cpu")

    assert {key: found for key, found in told.items() if found} == {}
    assert model.config.backbone_hidden_size == ours.config.backbone
    assert (ours.config.centroid is None) == (shape not in ("e2b", "e4b"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [Kind.Q4_0, Kind.Q8_0, Kind.Q4_K, Kind.Q6_K, Kind.IQ4_XS, Kind.F16]
)
def test_packed_weights_are_the_packages_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Each matrix is what the `gguf` package unpacks, in bfloat16; transformers agrees with us."""
    from transformers import Gemma4ForCausalLM

    monkeypatch.setattr(tiny_models, "HIDDEN", 256)
    SHAPES["e2b"](tmp_path / "pair", 0)
    files = write_gguf(tmp_path / "pair" / "target", tmp_path / "m.gguf", Writing(kind=kind))
    made = weights(files, tmp_path / "hf")
    stored = load_file(made / "model.safetensors")
    [tensor] = [
        t for t in gguf.GGUFReader(files["m.gguf"]).tensors if t.name == "blk.3.attn_q.weight"
    ]
    values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
    theirs = Gemma4ForCausalLM.from_pretrained(made, dtype=torch.float32)
    with torch.inference_mode():
        expected = theirs(IDS[None]).logits[0]

    assert torch.equal(stored["model.layers.3.self_attn.q_proj.weight"], values.bfloat16())
    found = logits(load_target(checkpoint_files(made), "cpu", torch.float32))
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=2e-3)


def test_a_whole_pair_goes_there_and_back(nano_gguf: Path, tmp_path: Path) -> None:
    """Tokenizer, template, ends and sampling are nano's; weights too, bit for bit."""
    lines: list[dict[str, object]] = []
    files = PairFiles(
        target={"nano.gguf": str(nano_gguf / "nano.gguf")},
        drafter={"mtp-nano.gguf": str(nano_gguf / "mtp-nano.gguf")},
    )
    asked = ExportRequest(files=files, format="hf", path=str(tmp_path / "hf"), name="nano")
    target, drafter = (checkpoint_files(place) for place in export(asked, lines.append))
    original = checkpoint_files(NANO / "target")

    assert read_tokenizer(target).to_str() == read_tokenizer(original).to_str()
    assert read_format(target) == read_format(original)
    assert read_eos_ids(target) == read_eos_ids(original)
    generation = json.loads(target["generation_config.json"].read_text())
    assert (generation["top_k"], generation["top_p"], generation["temperature"]) == (64, 0.95, 1.0)
    assert stored_weights(target).dtype is torch.bfloat16
    models = [load_target(found, "cpu", torch.float32) for found in (target, original)]
    assert torch.equal(logits(models[0]), logits(models[1]))
    load_drafter(drafter, "cpu", torch.float32).bind(models[0])
    assert "unpacked" in str(lines[-1]["status"])


def test_suppressed_tokens_are_kept(pair_of: Callable[[str], Path], tmp_path: Path) -> None:
    """They are in the generation config, and so in the configuration that is read again."""
    source = shutil.copytree(pair_of("26b") / "target", tmp_path / "source")
    settings = json.loads((source / "config.json").read_text()) | {"suppress_tokens": [5, 9]}
    (source / "config.json").write_text(json.dumps(settings))
    files = write_gguf(source, tmp_path / "m.gguf")
    model = export_unpacked.read_model(files)
    config = export_unpacked.read_target_config(model)
    found = export_unpacked._generation(model, config, frozenset((1, 106)))

    assert config.suppress_tokens == (5, 9)
    assert found["suppress_tokens"] == [5, 9]
    assert export_unpacked.target_settings(config, found, "float32")["model_type"] == "gemma4_text"


def test_a_head_of_its_own_is_told(pair_of: Callable[[str], Path], tmp_path: Path) -> None:
    """It would be lost: the layout ties it to the embedding."""
    files = write_gguf(
        pair_of("26b") / "target",
        tmp_path / "m.gguf",
        Writing(extra={"output.weight": (128, 64)}),
    )

    with pytest.raises(BadRequest, match="head of its own"):
        weights(files, tmp_path / "hf")


def test_a_full_disk_is_told_before(
    pair_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both figures, and nothing is written."""
    files = write_gguf(pair_of("26b") / "target", tmp_path / "m.gguf")
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(export_unpacked.shutil, "disk_usage", lambda place: usage)

    with pytest.raises(WillNotFit, match="the disk has 1000"):
        weights(files, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a chunk of rows is held, however large the tensor."""
    largest = 0

    def counted(blocks: object, dtype: torch.dtype) -> torch.Tensor:
        nonlocal largest
        found = unpacked(blocks, dtype)
        largest = max(largest, found.numel())
        return found

    unpacked = export_unpacked.unpacked
    monkeypatch.setattr(export_unpacked, "unpacked", counted)
    monkeypatch.setattr(export_unpacked, "_CHUNK_WEIGHTS", 640)
    monkeypatch.setattr(tiny_models, "VOCAB", 128)
    SHAPES["31b"](tmp_path / "pair", 0)
    files = write_gguf(tmp_path / "pair" / "target", tmp_path / "m.gguf")
    weights(files, tmp_path / "hf")

    assert 0 < largest <= 640


def test_parts_become_one_file(pair_of: Callable[[str], Path], tmp_path: Path) -> None:
    """The `gguf` package and we read it: all keys, all tensors, and nothing of parts."""
    source = pair_of("e2b") / "target"
    parts = write_gguf(source, tmp_path / "m.gguf", Writing(kind=Kind.Q8_0, parts=3))
    files = PairFiles(target={name: str(path) for name, path in parts.items()})
    asked = ExportRequest(files=files, format="gguf", path=str(tmp_path / "one.gguf"), name="m")
    [made] = export(asked, lambda line: None)
    whole = write_gguf(source, tmp_path / "whole.gguf", Writing(kind=Kind.Q8_0))
    found, expected = (gguf.GGUFReader(path) for path in (made, whole["whole.gguf"]))

    tensors = [{t.name: bytes(t.data.tobytes()) for t in r.tensors} for r in (found, expected)]
    assert tensors[0] == tensors[1]
    assert found.fields["split.count"].contents() == 0
    keys = {key for key in found.fields if key.startswith("gemma4.")}
    assert keys == {key for key in expected.fields if key.startswith("gemma4.")}
    both = [load_target({"m.gguf": path}, "cpu", torch.float32) for path in (made, *whole.values())]
    assert torch.equal(logits(both[0]), logits(both[1]))


def test_clusters_that_are_left_out_are_told(tmp_path: Path) -> None:
    """llama.cpp loads no drafter that has them; whoever exports reads why they are gone."""
    halves = {
        half: {name: str(path) for name, path in checkpoint_files(NANO / half).items()}
        for half in ("target", "drafter")
    }
    lines: list[dict[str, object]] = []
    asked = ExportRequest(files=PairFiles(**halves), format="gguf", path=str(tmp_path / "n.gguf"))
    export(asked, lines.append)

    assert "clusters are left out" in str(lines[-1]["status"])
