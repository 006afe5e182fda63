"""What a disposable process says of a pair's files."""

import json
import shutil
from pathlib import Path

import pytest

import gemmamodelfiles
from gemmad.api.errors import Unsupported
from gemmad.inspection.inspector import inspect
from gemmad.wire import PairFiles

NANO = Path(gemmamodelfiles.__path__[0]) / "nano"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A copy of nano whose small files may be changed."""
    return shutil.copytree(NANO, tmp_path / "nano")


def files(pair: Path) -> PairFiles:
    """The pair's files as the store would hand them over."""
    halves = {
        kind: {path.name: str(path) for path in (pair / kind).iterdir()}
        for kind in ("target", "drafter")
    }
    return PairFiles(target=halves["target"], drafter=halves["drafter"])


def change(path: Path, **settings: object) -> None:
    """The JSON file says this as well."""
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


async def test_a_sound_pair_is_described(pair: Path) -> None:
    """Size, type, context, abilities, sampling defaults; the drafter fits."""
    found = await inspect(files(pair))

    assert found.drafter_mismatch is None
    assert (found.details.parameter_size, found.details.quantization_level) == ("13.7M", "BF16")
    assert found.details.context_length == 4096
    assert "tools" in found.details.capabilities
    assert found.parameters["top_k"] == 64
    assert found.drafter_parameter_size == "1.92M"
    assert found.info["general.architecture"] == "gemma4"


async def test_a_drafter_of_another_target_is_told_apart(pair: Path) -> None:
    """Both values are named; the target is sound all the same."""
    change(pair / "drafter" / "config.json", backbone_hidden_size=2560)

    found = await inspect(files(pair))

    assert found.drafter_mismatch is not None
    assert "2560" in found.drafter_mismatch
    assert "320" in found.drafter_mismatch


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "llama"}'),
        ("model.safetensors", b"not weights"),
        ("tokenizer.json", b"["),
    ],
)
async def test_a_damaged_file_is_named(pair: Path, name: str, data: bytes) -> None:
    """One sentence with the file in it, whatever is wrong."""
    (pair / "target" / name).write_bytes(data)

    with pytest.raises(Unsupported, match=name):
        await inspect(files(pair))


async def test_code_in_a_config_is_refused(pair: Path) -> None:
    """The key that would load it is named."""
    change(pair / "target" / "config.json", auto_map={"AutoModel": "evil.Model"})

    with pytest.raises(Unsupported, match="auto_map"):
        await inspect(files(pair))
