"""The store as its user looks after it: garbage, verification, partials, other programs."""

import json
from pathlib import Path

import pytest

from tests.fakes.fake_daemon import FakeDaemon
from tests.unit.client.conftest import Gemma

GARBAGE = [{"digest": "sha256:" + "a" * 64, "size": 3_000_000}]


def test_garbage_is_shown_then_removed_when_agreed(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Nothing is removed without an answer."""
    daemon.state.garbage = list(GARBAGE)
    refused, unanswered = gemma("gc", stdin="n\n"), gemma("gc")

    assert (refused.exit_code, unanswered.exit_code) == (1, 1)
    assert "1 file that no model needs, 3.0 MB." in refused.stderr
    assert "gemma gc --yes" in unanswered.stderr
    assert daemon.state.garbage == GARBAGE
    assert gemma("gc", stdin="y\n").stdout == "Removed 1 file that no model needs, 3.0 MB.\n"
    assert gemma("gc").stdout == "Nothing to remove.\n"


def test_garbage_for_programs_is_a_dry_run_unless_agreed(gemma: Gemma, daemon: FakeDaemon) -> None:
    """With --json nobody is asked."""
    daemon.state.garbage = list(GARBAGE)

    assert json.loads(gemma("gc", "--json").stdout)["dry_run"] is True
    assert daemon.state.garbage == GARBAGE
    assert json.loads(gemma("gc", "--json", "--yes").stdout)["bytes"] == 3_000_000
    assert daemon.state.garbage == []


def test_a_sound_store_is_verified(gemma: Gemma, daemon: FakeDaemon) -> None:
    """A line a model, and exit code 0."""
    result = gemma("verify")

    assert result.exit_code == 0
    assert (
        result.stdout == "nano:latest    ok    1 file\nEvery byte is as it should be (1 model).\n"
    )
    assert gemma("verify", "other").exit_code == 1


def test_a_bad_file_is_named_and_repaired(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Exit code 1 while it is bad; with --repair it is fetched again."""
    daemon.state.bad_files = {"nano:latest": "tokenizer.json"}
    found = gemma("verify", "nano")
    as_json = gemma("verify", "nano", "--json")
    repaired = gemma("verify", "nano", "--repair")

    assert (found.exit_code, as_json.exit_code, repaired.exit_code) == (1, 1, 0)
    assert "nano:latest    BAD" in found.stdout
    assert "  target tokenizer.json: its digest is another\n" in found.stdout
    assert "gemma verify --repair" in found.stdout
    assert json.loads(as_json.stdout)["bad"] == 1
    assert "nano:latest    repaired    1 file" in repaired.stdout
    assert "Repaired: 1 model." in repaired.stdout
    assert gemma("verify").exit_code == 0


def test_what_cannot_be_repaired_is_exit_code_1(gemma: Gemma, daemon: FakeDaemon) -> None:
    """With the reason."""
    daemon.state.bad_files = {"nano:latest": "config.json"}
    daemon.state.pullable.clear()
    result = gemma("verify", "--repair")

    assert result.exit_code == 1
    assert "not repaired nano:latest: Nobody has its files." in result.stderr


def test_partial_downloads_are_removed(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Beside models, or alone; without either there is nothing to do."""
    daemon.state.partials = [{"digest": "sha256:x", "size": 9, "completed": 5_000_000}]

    assert gemma("rm").exit_code == 2
    assert gemma("rm", "--partial").stdout == "deleted 1 unfinished download, 5.0 MB\n"
    assert gemma("rm", "--partial").stdout == "No download is unfinished.\n"
    assert json.loads(gemma("rm", "nano", "--partial", "--json").stdout) == {
        "deleted": ["nano"],
        "partial_bytes": 0,
    }


def test_another_programs_models_are_imported(
    gemma: Gemma, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Those that cannot run here are passed over, with the reason; a store can be named."""
    result = gemma("import", "ollama", "--store", str(tmp_path))

    assert (result.exit_code, result.stdout) == (0, "imported 1 model\n")
    assert "passed over llama3:8b: The architecture llama cannot run here." in result.stderr
    assert daemon.sent("/api/import")[0]["store"] == str(tmp_path)
    assert gemma("import", "ollama", "gemma4:e2b").exit_code == 0
    assert daemon.sent("/api/import")[1]["model"] == "gemma4:e2b"
    assert gemma("import", "lmstudio").exit_code == 2


@pytest.mark.parametrize(
    ("name", "form"), [("out", "hf"), ("out.gguf", "gguf"), ("O.GGUF", "gguf")]
)
def test_a_pair_is_exported(
    gemma: Gemma, daemon: FakeDaemon, tmp_path: Path, name: str, form: str
) -> None:
    """To a path that means the same to the daemon; the ending says the format."""
    result = gemma("export", "nano", str(tmp_path / name))

    assert result.stdout.startswith("exported 'nano' to ")
    sent = daemon.sent("/api/export")[0]
    assert (sent["format"], sent["path"]) == (form, str(tmp_path / name))


def test_an_export_names_every_file_it_made(
    gemma: Gemma, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The drafter is a file beside the target's, in whose name nobody would look for it."""
    said = gemma("export", "nano", str(tmp_path / "out.gguf")).stdout

    assert said == f"exported 'nano' to {tmp_path}/out.gguf and {tmp_path}/mtp-out.gguf\n"
    assert gemma("export", "nano", str(tmp_path / "out")).stdout.endswith(f"{tmp_path}/out\n")


def test_an_export_overwrites_nothing(gemma: Gemma, daemon: FakeDaemon, tmp_path: Path) -> None:
    """An empty directory may be there."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()

    assert "exists already" in gemma("export", "nano", str(tmp_path / "full")).stderr
    assert gemma("export", "nano", str(tmp_path / "empty")).exit_code == 0
    assert len(daemon.sent("/api/export")) == 1


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ("cp nano b", {"source": "nano", "destination": "b"}),
        ("stop nano", {"unloaded": "nano"}),
        ("draft rm nano", {"model": "nano", "drafter": None}),
        ("rm nano", {"deleted": ["nano"]}),
    ],
)
def test_what_was_done_is_told_to_programs(
    gemma: Gemma, daemon: FakeDaemon, line: str, record: dict
) -> None:
    """One JSON object, with --json."""
    assert json.loads(gemma(*line.split(), "--json").stdout) == record


def test_a_card_shows_messages_adapter_and_notes(gemma: Gemma, daemon: FakeDaemon) -> None:
    """And where both halves came from."""
    daemon.state.notes = ["Acceptance may drop."]
    daemon.state.models["nano:latest"] |= {
        "messages": [{"role": "user", "content": "Hi."}],
        "adapter": ["adapter_model.safetensors"],
    }
    card = gemma("show", "nano").stdout

    assert "  Notes\n    Acceptance may drop.\n" in card
    assert "  Adapter\n    adapter_model.safetensors\n" in card
    assert "  Messages\n    user: Hi.\n" in card
    assert "builtin:nano@111111111111\n" in card
