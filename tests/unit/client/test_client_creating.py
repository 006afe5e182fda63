"""`gemma create`: what is sent for a Modelfile, by path where that can be, else as uploads."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemmacli.local_files import Place, model_files, resolve
from gemmad.api.errors import BadRequest
from tests.fakes.fake_daemon import FakeDaemon, FakeTcpDaemon
from tests.unit.client.conftest import Gemma

WEIGHTS = b"weights" * 1000


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a target, a drafter, an adapter and a GGUF file; the working directory."""
    place = tmp_path / "here"
    for folder in ("target", "drafter", "lora"):
        (place / folder).mkdir(parents=True)
        (place / folder / "model.safetensors").write_bytes(WEIGHTS + folder.encode())
        (place / folder / "config.json").write_text("{}")
        (place / folder / "pytorch_model.bin").write_bytes(b"never")
    (place / "model.gguf").write_bytes(WEIGHTS)
    (place / "again").symlink_to(place / "target")
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTcpDaemon]:
    """A daemon that is reached over TCP."""
    with FakeTcpDaemon() as running:
        monkeypatch.delenv("GEMMA_SOCKET", raising=False)
        monkeypatch.setenv("GEMMA_HOST", running.address)
        yield running


def made(gemma: Gemma, text: str, *options: str) -> None:
    """`gemma create` of the text ended well."""
    Path("Modelfile").write_text(text)
    result = gemma("create", "mine", *options)
    assert result.exit_code == 0, result.stderr


def test_all_that_a_modelfile_says_is_sent(gemma: Gemma, daemon: FakeDaemon, here: Path) -> None:
    """Typed; nothing of a file, for a FROM that is a name."""
    text = (
        "FROM nano\nDRAFT none\nPARAMETER temperature 0.5\nPARAMETER stop a\nPARAMETER stop b\n"
        "SYSTEM Be brief.\nTEMPLATE {{ messages }}\nMESSAGE user Hi.\nLICENSE MIT\nLICENSE X\n"
    )
    made(gemma, text, "--quantize", "int8", "--draft-quantize", "int4")

    assert daemon.sent("/api/create") == [
        {
            "model": "mine",
            "from": "nano",
            "draft": "none",
            "parameters": {"temperature": 0.5, "stop": ["a", "b"]},
            "system": "Be brief.",
            "template": "{{ messages }}",
            "messages": [{"role": "user", "content": "Hi."}],
            "license": ["MIT", "X"],
            "quantize": "int8",
            "draft_quantize": "int4",
            "stream": True,
        }
    ]


def test_paths_are_the_daemons_over_the_socket(
    gemma: Gemma, daemon: FakeDaemon, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute, from the Modelfile's directory and not from the working one."""
    (here / "Modelfile").write_text("FROM ./target\nDRAFT drafter\nADAPTER lora/\n")
    monkeypatch.chdir("/")
    assert gemma("create", "mine", "-f", str(here / "Modelfile")).exit_code == 0
    body = daemon.sent("/api/create")[0]

    assert [body[key] for key in ("from_path", "draft_path", "adapter_path")] == [
        str(here / name) for name in ("target", "drafter", "lora")
    ]
    assert daemon.state.blobs == {}


@pytest.mark.parametrize("refuses", [False, True])
def test_files_are_uploaded_where_paths_do_not_serve(
    gemma: Gemma, here: Path, request: pytest.FixtureRequest, refuses: bool
) -> None:
    """Over TCP, and to a daemon that may not read them; only what makes up a model."""
    daemon = request.getfixturevalue("daemon" if refuses else "remote")
    daemon.state.cannot_read = refuses
    made(gemma, "FROM target\nDRAFT ./drafter\nADAPTER lora\n")
    body = daemon.sent("/api/create")[-1]

    for field, folder in (("files", "target"), ("draft_files", "drafter"), ("adapters", "lora")):
        weights = digest(WEIGHTS + folder.encode())
        assert body[field] == {"model.safetensors": weights, "config.json": digest(b"{}")}
    assert "from_path" not in body
    assert len(daemon.state.blobs) == 4


def test_what_the_store_has_is_not_sent(gemma: Gemma, remote: FakeTcpDaemon, here: Path) -> None:
    """The hash is asked for first."""
    remote.state.blobs[digest(WEIGHTS)] = b"kept"
    Path("Modelfile").write_text("FROM ./model.gguf")
    told = gemma("create", "mine").stderr

    assert "hashing model.gguf" in told
    assert "uploading" not in told
    assert remote.state.blobs == {digest(WEIGHTS): b"kept"}


def test_an_exported_pair_is_uploaded_as_one(
    gemma: Gemma, remote: FakeTcpDaemon, here: Path
) -> None:
    """Its two folders are the two halves; a refused drafter stays here."""
    made(gemma, "FROM .\n")
    made(gemma, "FROM .\nDRAFT none\n")
    both, alone = remote.sent("/api/create")

    assert both["draft_files"]["model.safetensors"] == digest(WEIGHTS + b"drafter")
    assert "draft_files" not in alone


def test_a_modelfile_comes_from_stdin_too(gemma: Gemma, daemon: FakeDaemon, here: Path) -> None:
    """As bytes; relative paths then start at the working directory."""
    assert gemma("create", "mine", "-f", "-", stdin="FROM ./model.gguf\n").exit_code == 0
    assert daemon.sent("/api/create")[0]["from_path"] == str(here / "model.gguf")
    assert json.loads(gemma("show", "mine", "--json").stdout)["drafter"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FORM nano", "Did you mean FROM?"),
        ("FROM ./nowhere", "which is not there"),
        ("FROM absent.gguf", "which is not there"),
        ("FROM ./Modelfile", "no safetensors or GGUF file"),
        ("FROM target\nDRAFT again", "same files"),
        ("FROM nano\nADAPTER hf.co/me/lora", "no directory here"),
        ("FROM model.gguf\nFROM nano", "must name files"),
        (f"FROM /x/sha256-{'a' * 64}", "gemma import ollama"),
        ("FROM other", "model 'other' not found"),
    ],
)
def test_what_is_wrong_is_one_line(
    gemma: Gemma, daemon: FakeDaemon, here: Path, text: str, says: str
) -> None:
    """And nothing is made."""
    Path("Modelfile").write_text(text)
    result = gemma("create", "mine")

    assert result.exit_code == 1
    assert says in result.stderr.splitlines()[-1]
    assert "mine:latest" not in daemon.state.models


def test_without_a_modelfile_the_option_is_named(
    gemma: Gemma, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is the working directory's."""
    monkeypatch.chdir(tmp_path)

    assert "-f" in gemma("create", "mine").stderr


def test_notes_are_told(gemma: Gemma, daemon: FakeDaemon, here: Path) -> None:
    """What Ollama has and this program does otherwise."""
    Path("Modelfile").write_text("FROM nano\nPARSER gemma4\n")

    assert "Note: PARSER gemma4 has no effect" in gemma("create", "mine").stderr


def test_parts_of_one_file_stand_for_it(tmp_path: Path) -> None:
    """The first part is named; other files of one instruction are uploaded."""
    names = [f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    for name in (*names, "mmproj.gguf"):
        (tmp_path / name).touch()
    split, mixed = (
        resolve("FROM", each, tmp_path) for each in ((*names,), (names[0], "mmproj.gguf"))
    )

    assert split is not None
    assert mixed is not None
    assert (split.single, mixed.single) == (tmp_path / names[0], None)
    assert set(model_files(mixed)) == {names[0], "mmproj.gguf"}


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    """Said before anything is sent."""
    (tmp_path / "config.json").touch()
    with pytest.raises(BadRequest, match="no safetensors"):
        model_files(Place(paths=(tmp_path,)))


def test_a_daemon_that_refuses_an_upload_is_heard(
    gemma: Gemma, remote: FakeTcpDaemon, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes while it is sent has another digest."""
    monkeypatch.setattr("gemmacli.uploading._hashed", wrong_hash)
    Path("Modelfile").write_text("FROM ./model.gguf")
    result = gemma("create", "mine")

    assert result.exit_code == 1
    assert "The content is not sha256:" in result.stderr


def wrong_hash(*_: object) -> Iterator[dict]:
    yield {"status": "hashing", "total": 1, "completed": 1}
    return digest(b"other")
