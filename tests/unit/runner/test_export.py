"""A pair that was exported is the pair, to us and to other programs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gemmamodelfiles
from gemmad.api.errors import BadRequest, LoadFailed
from gemmad.wire import PairFiles
from gemmarunner import export_metadata
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.export import ExportRequest, export
from gemmarunner.files import read_eos_ids, read_format, read_tokenizer
from gemmarunner.models.loader import load_drafter, load_target
from tests.fakes.tiny_models import checkpoint_files

NANO = Path(gemmamodelfiles.__path__[0]) / "nano"
IDS = torch.arange(12) * 31 + 200


def nano(drafter: bool = True) -> PairFiles:
    """The built-in pair."""
    target, draft = (
        {name: str(path) for name, path in checkpoint_files(NANO / half).items()}
        for half in ("target", "drafter")
    )
    return PairFiles(target=target, drafter=draft if drafter else None)


def request(path: Path, format: str = "gguf", **different: object) -> ExportRequest:
    """An export of nano to `path`."""
    wanted = {"files": nano(), "format": format, "path": str(path), "name": "nano"} | different
    return ExportRequest(**wanted)  # type: ignore[arg-type]


def quiet(_: dict[str, object]) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nano.gguf and mtp-nano.gguf."""
    directory = tmp_path_factory.mktemp("exported")
    export(request(directory / "nano.gguf"), quiet)
    return directory


def test_gguf_is_the_same_target(exported: Path) -> None:
    """Equal configuration, and logits bit for bit."""
    original = load_target(checkpoint_files(NANO / "target"), "cpu", torch.float32)
    found = load_target({"nano.gguf": exported / "nano.gguf"}, "cpu", torch.float32)
    cache = [KVCache(m.config, 32, 32, m.device, m.dtype) for m in (original, found)]

    assert found.config == original.config
    assert torch.equal(found.forward(IDS, cache[1]), original.forward(IDS, cache[0]))


def test_gguf_drafter_lies_beside_and_binds(exported: Path) -> None:
    """Found by others by its name, without the clusters they refuse."""
    target = load_target({"nano.gguf": exported / "nano.gguf"}, "cpu", torch.float32)
    drafter = load_drafter({"d.gguf": exported / "mtp-nano.gguf"}, "cpu", torch.float32)
    drafter.bind(target)

    assert drafter.config.centroid is None
    assert sorted(path.name for path in exported.iterdir()) == ["mtp-nano.gguf", "nano.gguf"]


def test_gguf_says_the_same_of_its_text(exported: Path) -> None:
    """Tokenizer, template and ends are nano's own."""
    files, original = {"n.gguf": exported / "nano.gguf"}, checkpoint_files(NANO / "target")

    assert read_tokenizer(files).to_str() == read_tokenizer(original).to_str()
    assert read_format(files) == read_format(original)
    assert read_eos_ids(files) == read_eos_ids(original)


def test_gguf_goes_on_as_it_is(exported: Path, tmp_path: Path) -> None:
    """What is GGUF already is copied."""
    files = PairFiles(target={"a.gguf": str(exported / "nano.gguf")})
    [made] = export(request(tmp_path / "again.gguf", files=files), quiet)

    assert made.read_bytes() == (exported / "nano.gguf").read_bytes()


def test_directories_hold_the_files(tmp_path: Path) -> None:
    """target/ and drafter/, each file as it is, nothing else beside them."""
    made = export(request(tmp_path / "nano", "hf"), quiet)

    assert [place.name for place in made] == ["target", "drafter"]
    for half in ("target", "drafter"):
        found = {path.name: path.read_bytes() for path in (tmp_path / "nano" / half).iterdir()}
        assert found == {p.name: p.read_bytes() for p in (NANO / half).iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["nano"]


def test_target_alone_is_alone(tmp_path: Path) -> None:
    """No drafter, no second file."""
    made = export(request(tmp_path / "n.gguf", files=nano(drafter=False)), quiet)

    assert [path.name for path in tmp_path.iterdir()] == [made[0].name] == ["n.gguf"]


@pytest.mark.parametrize("taken", ["n.gguf", "mtp-n.gguf"])
def test_what_is_there_stays(tmp_path: Path, taken: str) -> None:
    """Refused unless forced, also where only the drafter's place is taken."""
    (tmp_path / taken).write_text("precious")

    with pytest.raises(BadRequest, match="already there"):
        export(request(tmp_path / "n.gguf"), quiet)
    assert (tmp_path / taken).read_text() == "precious"
    assert len(export(request(tmp_path / "n.gguf", force=True), quiet)) == 2
    assert (tmp_path / taken).stat().st_size > 1_000_000


def test_gguf_takes_no_tokenizer_that_it_cannot_give_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What our own reader would refuse is not written; a directory holds it."""
    small = replace(export_metadata.LIMITS, text_bytes=10_000)
    monkeypatch.setattr(export_metadata, "LIMITS", small)

    with pytest.raises(BadRequest, match="longer than the 10,000") as refused:
        export(request(tmp_path / "n.gguf"), quiet)
    assert refused.value.fix == "Export it to a directory."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["hf", "gguf"])
def test_failure_leaves_nothing(tmp_path: Path, format: str) -> None:
    """A drafter that cannot be read: no target without it, no partial file."""
    broken = nano()
    assert broken.drafter is not None
    files = PairFiles(
        target=broken.target, drafter=broken.drafter | {"model.safetensors": "/nowhere"}
    )

    with pytest.raises((OSError, LoadFailed)):
        export(request(tmp_path / "n", format, files=files), quiet)
    assert list(tmp_path.iterdir()) == []


def test_place_must_be_one(tmp_path: Path) -> None:
    """Nothing is written relative to wherever the child happens to run."""
    for path in (Path("n.gguf"), tmp_path / "no" / "such" / "n.gguf"):
        with pytest.raises(BadRequest, match="absolute path"):
            export(request(path), quiet)


def run_child(text: str) -> tuple[int, list[dict[str, object]]]:
    """A child's exit status and lines."""
    ran = subprocess.run(
        [sys.executable, "-m", "gemmarunner.export"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.slow
def test_child_tells_its_progress(tmp_path: Path) -> None:
    """Lines of JSON: growing figures for each half, then the files."""
    wanted = {"target": nano().target, "drafter": nano().drafter}
    asked = {"files": wanted, "format": "gguf", "path": str(tmp_path / "n.gguf")}
    status, lines = run_child(json.dumps(asked))

    assert status == 0
    assert {line["status"] for line in lines} >= {"writing target", "writing drafter", "success"}
    assert lines[-1]["files"] == [str(tmp_path / "n.gguf"), str(tmp_path / "mtp-n.gguf")]
    assert lines[-3]["completed"] == lines[-3]["total"]
    assert "clusters" in str(lines[-2]["status"])  # what a person should know of the drafter


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", '{"format": "gguf"}', '{"files": 1}'])
def test_child_tells_what_is_wrong(text: str) -> None:
    """One line with the error, a status that is not 0, no stack trace."""
    status, [line] = run_child(text)

    assert status == 1
    assert line["code"] == "bad_request"


@pytest.mark.slow
def test_transformers_loads_the_directories(tmp_path: Path) -> None:
    """Both halves, with all of their weights; and together they answer as we do."""
    from transformers import AutoModelForCausalLM, Gemma4AssistantForCausalLM

    target, drafter = export(request(tmp_path / "nano", "hf"), quiet)
    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    assistant = Gemma4AssistantForCausalLM.from_pretrained(drafter, dtype=torch.float32)
    ours = load_target(checkpoint_files(target), "cpu", torch.float32)
    cache = KVCache(ours.config, 32, 32, ours.device, ours.dtype)
    with torch.inference_mode():
        theirs = model(IDS[None]).logits[0]

    torch.testing.assert_close(ours.logits(ours.forward(IDS, cache)), theirs, atol=2e-3, rtol=1e-3)
    assert assistant.config.backbone_hidden_size == ours.config.hidden
