"""Which way of running a pair is taken, and what a drafter or kernels that fail cost."""

import logging
from pathlib import Path

import msgspec
import pytest
import torch

from gemmad.api.errors import LoadFailed
from gemmad.wire import Load, PairFiles
from gemmarunner import backends
from gemmarunner.backends import Built, Place
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from tests.fakes.tiny_models import SHAPES, checkpoint_files

CPU = Place("cpu", torch.float32)
HALF = Place("cpu", torch.bfloat16)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair, and in `other` the drafter of a larger target."""
    directory = tmp_path_factory.mktemp("pair")
    SHAPES["e4b"](directory, 0)
    SHAPES["31b"](directory / "other", 0)
    return directory


def load_of(models: Path, drafter: str | None = "assistant") -> Load:
    """A load of the pair with that drafter."""
    target, draft = (
        {name: str(path) for name, path in checkpoint_files(models / part).items()}
        for part in ("target", drafter or "target")
    )
    return Load(files=PairFiles(target=target, drafter=draft if drafter else None), num_ctx=64)


def built(models: Path, load: Load, place: Place = CPU) -> Built:
    """What is built of a load."""
    return backends.build(load, checkpoint_files(models / "target"), place, lambda *_: None)


def words(found: Built, depth: int) -> list[int]:
    """What a backend says in a round."""
    backend, sampler = found.backend, Sampler(Sampling(temperature=0.0), vocab=128)
    backend.prefill(0, [3, 4, 5])
    text = [3, 4, 5, backend.first(0, [3, 4, 5], sampler)]
    [new] = backend.launch([RoundPlan(0, text, sampler, depth)]).wait().tokens
    return [text[-1], *new]


def fail(*_: object) -> Built:
    """Kernels that this machine's compiler cannot build."""
    raise RuntimeError("ptxas exited with code 255")


def test_a_cpu_never_fuses() -> None:
    """Neither a CPU nor a Mac's GPU runs the fused kernels."""
    assert not backends.can_fuse("cpu")
    assert not backends.can_fuse("mps")


def test_no_triton_no_fused_kernels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where Triton is missing, a GPU runs torch's operators, and the log says what that costs."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)

    assert not backends.can_fuse("cuda")
    assert "Triton is not installed" in caplog.text


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((9, 0), True)])
def test_old_gpus_do_not_fuse(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool
) -> None:
    """bf16 in tensor cores begins with compute capability 8.0."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    assert backends.can_fuse("cuda:0") is expected


def test_pair_is_built_warm(models: Path) -> None:
    """A CPU's pair has its drafter and no note, and every phase was reported."""
    phases: list[str] = []
    load, files = load_of(models), checkpoint_files(models / "target")

    found = backends.build(load, files, CPU, lambda phase, *_: phases.append(phase))

    assert isinstance(found.backend, EagerBackend)
    assert (found.has_drafter, found.note) == (True, None)
    assert {"target", "drafter", "warm"} <= set(phases)
    assert words(found, 2)


def test_target_without_a_drafter_is_alone_and_content(models: Path) -> None:
    """Nothing is noted where nothing was given."""
    found = built(models, load_of(models, None))

    assert (found.has_drafter, found.note, found.backend.depth_limit(1)) == (False, None, 0)


def test_foreign_drafter_is_left_out(models: Path) -> None:
    """A drafter of another target is named in the note; the target says what it says alone."""
    alone = built(models, load_of(models, None))

    found = built(models, load_of(models, "other/assistant"))

    assert (found.has_drafter, found.backend.depth_limit(1)) == (False, 0)
    assert found.note is not None
    assert "PairMismatch" in found.note
    assert words(found, 0) == words(alone, 0)


def test_failing_kernels_fall_back(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A compiler's failure costs speed, never the model, and is logged with its cause."""
    monkeypatch.setattr(backends, "can_fuse", lambda device: True)
    monkeypatch.setattr(backends, "_fused", fail)

    found = built(models, load_of(models), HALF)

    assert isinstance(found.backend, EagerBackend)
    assert found.has_drafter
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "ptxas" in str(record.exc_info)


@pytest.mark.parametrize("error", [LoadFailed("torn"), MemoryError(), torch.OutOfMemoryError()])
def test_damage_and_lack_of_room_are_told(
    models: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What torch's operators could not mend either is not tried again."""

    def raising(*_: object) -> Built:
        raise error

    monkeypatch.setattr(backends, "can_fuse", lambda device: True)
    monkeypatch.setattr(backends, "_fused", raising)

    with pytest.raises(type(error)):
        built(models, load_of(models), HALF)


def test_float32_is_not_fused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused kernels are for halves only, also where they could run."""
    monkeypatch.setattr(backends, "can_fuse", lambda device: True)
    monkeypatch.setattr(backends, "_fused", fail)

    assert isinstance(built(models, load_of(models)).backend, EagerBackend)


def test_a_split_says_what_each_device_has(models: Path) -> None:
    """Its layers' keys and values; together they are all. The words are those of one device."""
    whole = built(models, load_of(models))
    layers = len(whole.config.layers)
    split = (("cpu:0", 2), ("cpu", layers - 2))
    found = built(models, msgspec.structs.replace(load_of(models), split=split))

    assert [part.device for part in found.parts] == ["cpu:0", "cpu"]
    assert sum(part.kv_bytes for part in found.parts) == found.backend.kv_bytes
    assert all(0 < part.kv_bytes < found.backend.kv_bytes for part in found.parts)
    assert any("layers on these devices" in note for note in found.notes)
    assert words(found, 2) == words(whole, 2)
    assert whole.parts == ()
