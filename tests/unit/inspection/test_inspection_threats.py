"""Files that broke other readers are refused here: each is named, and what is wrong is said."""

import asyncio
import hashlib
import json
import os
import re
import struct
import time
from pathlib import Path

import pytest

from gemmad.api.errors import Unsupported
from gemmad.formats.file_names import wanted_file
from gemmad.formats.gguf import GgufLimits
from gemmad.formats.limits import BadFile
from gemmad.inspection import gguf_files, hf_files
from gemmad.inspection.inspector import inspect
from gemmad.inspection.look import look
from gemmad.wire import PairFiles
from tests.unit.formats.fuzz_worker import NANO
from tests.unit.formats.hostile_gguf import STRING, header, info, key, number, text
from tests.unit.inspection.threats import GGUF, Threat, threats

ALL = threats()


def files(threat: Threat, directory: Path) -> PairFiles:
    """The hostile file, among sound ones where its format has several."""
    path = directory / threat.name
    path.write_bytes(threat.data)
    sound = {} if threat.name == GGUF else {name: str(NANO / name) for name in os.listdir(NANO)}
    return PairFiles(target=sound | {threat.name: str(path)})


def check(threat: Threat, told: str, directory: Path) -> None:
    """The text is one sentence or two, names the file, and gives no place on this machine."""
    assert told.startswith(threat.name), told
    assert re.search(threat.told, told), told
    assert len(told) < 400, told
    assert told.isprintable(), told
    assert str(directory) not in told


@pytest.mark.parametrize("threat", ALL, ids=[threat.id for threat in ALL])
def test_threat_is_refused_at_once(threat: Threat, tmp_path: Path) -> None:
    """In under 0.5 s, with the file's name and the reason."""
    given, started = files(threat, tmp_path), time.process_time()

    with pytest.raises(BadFile) as error:
        look(given)

    assert time.process_time() - started < 0.5
    check(threat, str(error.value), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_threats_are_refused_by_the_disposable_process(tmp_path: Path) -> None:
    """The same texts from the process that has the limits; none of them needed those."""
    for threat in ALL:
        directory = tmp_path / f"{ALL.index(threat)}"
        directory.mkdir()
        with pytest.raises(Unsupported) as error:
            await inspect(files(threat, directory))
        check(threat, error.value.message, directory)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "nothing"])
def test_t07_t33_no_regular_file_is_opened(kind: str, tmp_path: Path) -> None:
    """A FIFO without a writer does not hang it, a device does not feed it (CVE-2024-39721)."""
    path = tmp_path / GGUF
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")

    with pytest.raises(BadFile, match=r"model\.gguf cannot be (used|read): "):
        look(PairFiles(target={GGUF: str(path)}))


@pytest.mark.parametrize("end", [".bin", ".pt", ".pth", ".pkl", ".ckpt", ".npy", ".npz", ".joblib"])
@pytest.mark.parametrize("more", ["", ".safetensors.bin", ".gguf.bin"])
def test_t23_pickles_are_never_wanted(end: str, more: str) -> None:
    """Nor anything that only begins as a file that is."""
    assert not wanted_file(f"model{more}{end}")


@pytest.mark.parametrize(
    "name",
    [f"x{end}" for end in (".h5", ".keras", ".onnx", ".py", ".so", ".ipynb", ".zip", ".tar.gz")]
    + ["config.json.py", "__init__.py", "sitecustomize.py", "CON", "tokenizer.model.gguf/"],
)
def test_t04_t23_code_and_archives_are_never_wanted(name: str) -> None:
    """The list says what is fetched; no list says what is not."""
    assert not wanted_file(name)


def test_t01_hostile_names_are_never_wanted() -> None:
    """2,000 spellings of another directory, in every place of a name that would be fetched."""
    odd = (
        "../",
        "..\\",
        "/",
        "\\",
        "C:",
        "\0",
        "%2e%2e%2f",
        "\uff0f",
        "\u2024\u2024/",
        "~/",
        "\\\\?\\",
    )
    odd += (
        "\n",
        "\r",
        "\x1b",
        " ",
        "\u202e",
        "\ud800",
        ":",
        "*",
        "?",
        "<",
        "|",
        '"',
        "'",
        "$(x)",
        "`x`",
    )
    wanted = ("model.safetensors", "model.gguf", "config.json", "LICENSE")
    names = {
        name[:at] + part + name[at:]
        for name in wanted
        for part in odd
        for at in range(len(name) + 1)
    }

    assert len(names) > 1_000
    assert [name for name in names if wanted_file(name)] == []


async def test_many_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A bomb beside a sound pair: one is refused, the other read."""
    bomb = next(threat for threat in ALL if threat.id == "T19 arraybomb")
    sound = PairFiles(target={name: str(NANO / name) for name in os.listdir(NANO)})
    found = await asyncio.gather(
        inspect(files(bomb, tmp_path)), inspect(sound), return_exceptions=True
    )

    assert isinstance(found[0], Unsupported)
    assert not isinstance(found[1], BaseException)


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("arraybomb", "34b4d78c2b4404f4"),
        ("cnt", "448a8ff95fccd519"),
        ("eof", "f3bf03d8da618344"),
        ("nest", "e5c5f6ab20f93ee9"),
        ("ovf", "771c9f4d42a138eb"),
    ],
)
def test_t19_bombs_are_those_that_were_measured(name: str, begin: str) -> None:
    """Byte for byte the files that made the `gguf` package's reader loop, recurse and overflow."""
    bomb = next(threat for threat in ALL if threat.id == f"T19 {name}")

    assert hashlib.sha256(bomb.data).hexdigest().startswith(begin)


def test_t22_shards_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shard is small; all of them are not: refused at the one that is too many."""
    monkeypatch.setattr(hf_files, "MAX_TENSORS", 500)
    sound = {name: str(NANO / name) for name in os.listdir(NANO) if name != "model.safetensors"}
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    for shard in range(3):
        made = json.dumps({f"s{shard}.t{n}": empty for n in range(200)}).encode()
        path = tmp_path / f"s{shard}.safetensors"
        path.write_bytes(struct.pack("<Q", len(made)) + made)
        sound[path.name] = str(path)

    with pytest.raises(BadFile, match=r"s2\.safetensors cannot be used: .* more than 500 tensors"):
        look(PairFiles(target=sound))


def test_t15_parts_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of a split GGUF model."""
    monkeypatch.setattr(gguf_files, "LIMITS", GgufLimits(tensors=500))
    files = {}
    for part in range(2):
        split = (number("split.count", 2), number("split.no", part))
        infos = [info(f"{part}.{n}", (32,), 2, n * 32) for n in range(300)]
        architecture = key("general.architecture", STRING, *text(b"gemma4"))
        fields = header([architecture, *split], infos, b"\0" * 301 * 32)
        path = tmp_path / f"m-{part}.gguf"
        path.write_bytes(b"".join(field.data for field in fields))
        files[path.name] = str(path)

    with pytest.raises(BadFile, match=r"m-1\.gguf cannot be used: .* more than 500 tensors"):
        look(PairFiles(target=files))
