"""Ollama's own Python client against a real daemon with fake runners."""

import ollama
import pytest

from tests.fakes.builtin_pair import write_pair
from tests.fakes.daemon_process import DaemonProcess

HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a daemon that has pulled nano."""
    daemon = DaemonProcess(tmp_path_factory.mktemp("ollama") / "home")
    daemon.start()
    with ollama.Client(daemon.url) as connected:
        connected.pull("nano")
        yield connected
    daemon.close()


def test_list_and_show(client):
    """Size, digest and details are where the client looks for them."""
    (model,) = client.list().models
    shown = client.show("nano")

    assert (model.model, model.details.family) == ("nano:latest", "gemma4")
    assert model.size > 0
    assert len(model.digest) == 64
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.modelinfo["general.architecture"] == "gemma4"
    assert shown.license.startswith("Apache")


def test_pull_streams_progress(client):
    """Totals and a last line of success."""
    told = list(client.pull("nano", stream=True))

    assert told[-1].status == "success"
    assert any(line.total and line.completed == line.total for line in told)


def test_generate_whole_and_streamed(client):
    """Every figure is there and above zero; context goes back in."""
    whole = client.generate("nano", "hello there")
    pieces = list(client.generate("nano", "hello there", stream=True, context=whole.context))

    assert whole.response == "".join(piece.response for piece in pieces) == "echo: hello there"
    assert pieces[-1].done_reason == "stop"
    for key in (
        "total_duration",
        "load_duration",
        "prompt_eval_duration",
        "eval_duration",
        "eval_count",
    ):
        assert whole[key] > 0
    assert whole.context


def test_chat_whole_and_streamed(client):
    """Also with options, think and keep_alive."""
    whole = client.chat("nano", HELLO, options={"temperature": 0, "seed": 1}, think=False)
    pieces = list(client.chat("nano", HELLO, stream=True, keep_alive="10m"))

    assert whole.message.content == "echo: hello there"
    assert "".join(piece.message.content for piece in pieces) == "echo: hello there"
    assert pieces[-1].done


def test_ps_and_unload(client):
    """Loaded by an empty request, gone after keep_alive 0."""
    assert client.generate("nano", keep_alive=-1).done_reason == "load"
    (running,) = client.ps().models
    assert (running.model, running.context_length) == ("nano:latest", 4096)
    assert running.expires_at.year > 2200

    assert client.generate("nano", keep_alive=0).done_reason == "unload"
    assert client.ps().models == []


def test_copy_and_delete(client):
    """A copy is listed, answers, and can be deleted without its original."""
    client.copy("nano", "team/other:v1")
    assert {m.model for m in client.list().models} == {"nano:latest", "team/other:v1"}
    assert client.generate("team/other:v1", "x").response == "echo: x"

    client.delete("team/other:v1")

    assert [m.model for m in client.list().models] == ["nano:latest"]
    assert client.generate("nano", "x").response == "echo: x"


def test_errors_are_the_clients_errors(client):
    """Status and sentence arrive, streaming or not."""
    for action, advice in (
        (lambda: client.chat("nope", HELLO), "gemma pull nope"),
        (lambda: list(client.chat("nope", HELLO, stream=True)), "gemma pull nope"),
        (lambda: client.show("nope"), "gemma pull nope"),
        (lambda: client.delete("nope"), "gemma list"),
    ):
        with pytest.raises(ollama.ResponseError, match=advice) as caught:
            action()
        assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="not supported") as caught:
        client.chat("nano", HELLO, format="json")
    assert caught.value.status_code == 400


def test_blobs_and_a_creation_from_files(client, tmp_path):
    """Uploaded once, named by digest, made into a pair that answers; FROM a name too."""
    pair = write_pair(tmp_path / "pair")
    files = {path.name: client.create_blob(path) for path in (pair / "target").iterdir()}
    told = list(client.create(model="made", files=files, system="be kind", stream=True))
    shown = client.show("made")

    assert told[-1].status == "success"
    assert (shown.details.format, "SYSTEM be kind" in shown.modelfile) == ("safetensors", True)
    assert client.generate("made", "x").response == "echo: x"

    client.create(
        model="mine", from_="nano", parameters={"temperature": 0.1, "stop": ["x"]},
        messages=[{"role": "user", "content": "hi"}], license="MIT", template="{{ messages }}",
    )  # fmt: skip
    shown = client.show("mine")
    assert "PARAMETER temperature 0.1" in shown.modelfile
    assert (shown.template, shown.license) == ("{{ messages }}", "MIT")
    assert {"made:latest", "mine:latest"} <= {m.model for m in client.list().models}
    for name in ("made", "mine"):
        client.delete(name)


async def test_the_asynchronous_client_uploads_without_a_length(client, tmp_path):
    """Its body is sent in chunks."""
    path = tmp_path / "blob"
    path.write_bytes(b"some bytes" * 100_000)
    async with ollama.AsyncClient(str(client._client.base_url)) as sending:
        digest = await sending.create_blob(path)

    assert digest == client.create_blob(path)


def test_a_creation_that_cannot_be_is_the_clients_error(client):
    """Status 400 and the reason."""
    for how, word in (
        ({"from_": "nano", "template": "{{ .Prompt }}"}, "Go's language"),
        ({"from_": "nano", "parameters": {"temprature": 1}}, "temperature"),
        ({"files": {"m.gguf": "sha256:" + "0" * 64}}, "Upload it"),
    ):
        with pytest.raises(ollama.ResponseError, match=word) as caught:
            client.create(model="x", **how)
        assert caught.value.status_code == 400
