"""Names made over HTTP: pull, create, draft, import, and who may name files of this machine."""

import asyncio

import pytest

from gemmad.api.modelfile import parse
from gemmad.core import ModelName
from gemmad.sources.builtin import BuiltinSource
from gemmad.store.store import Store
from tests.fakes.builtin_pair import write_pair
from tests.fakes.pull_scenes import CHUNK, FakeNetwork, FakeSource, half, in_hand, remote
from tests.fakes.served import served

WEIGHTS = bytes(range(256)) * 64  # four chunks
TARGET, DRAFTER = "hf.co/o/target", "hf.co/o/drafter"
SUCCESS = {"status": "success"}


@pytest.fixture
async def daemon(tmp_path):
    """A hub with a pair, the built-in pair, and one name of a catalogue."""
    hub = FakeSource({
        TARGET: half(TARGET, in_hand(b"{}"), remote(WEIGHTS)),
        DRAFTER: half(DRAFTER, in_hand(b"[]", "drafter"), revision="d" * 40),
    })  # fmt: skip
    builtin = BuiltinSource(write_pair(tmp_path / "nano"))
    catalogue = {"gemma4:e4b": f"FROM {TARGET}\nDRAFT {DRAFTER}\nPARAMETER top_k 64\n"}
    async with served(tmp_path, [builtin, hub], FakeNetwork(WEIGHTS), catalogue) as running:
        yield running


def manifest(daemon, name):
    return daemon.store.get(ModelName.parse(name))


async def test_a_pull_binds_the_pair_with_its_wish(daemon):
    """Drafter, packing of both halves, and the last record."""
    wish = {"model": "gemma4:e4b", "quantize": "int8", "draft_quantize": "int4"}
    status, records = await daemon.ask("/api/pull", wish)
    made = manifest(daemon, "gemma4:e4b")

    assert (status, records[0], records[-1]) == (200, {"status": "pulling manifest"}, SUCCESS)
    assert made.parameters == {
        "temperature": 0.5, "top_k": 64, "quantize": "int8", "draft_quantize": "int4",
    }  # fmt: skip
    assert made.drafter is not None


async def test_a_pull_that_is_not_streamed_answers_once(daemon):
    """With its end."""
    assert await daemon.ask("/api/pull", {"model": "nano", "stream": False}) == (200, [SUCCESS])


@pytest.mark.parametrize(("body", "status", "word"), [
    ({"model": "gemma5"}, 404, "catalogue"), ({"model": ""}, 400, "missing"),
    ({"model": "gemma4:e4b", "quantize": "q4"}, 400, "int8"),
    ({"model": "gemma4:e4b", "draft": "hf.co/x"}, 400, "OWNER/REPO"),
    ({"model": "/etc"}, 400, "no name of its own"),
])  # fmt: skip
async def test_a_pull_that_cannot_be_has_a_status(daemon, body, status, word):
    """Streamed or not, before a stream has begun."""
    for stream in (True, False):
        told, records = await daemon.ask("/api/pull", body | {"stream": stream})
        assert (told, word in records[0]["error"]) == (status, True), records


async def test_a_full_disk_is_507_with_both_numbers(daemon, monkeypatch):
    """As a status, also of a stream, and nothing was fetched."""
    monkeypatch.setattr(Store, "free", lambda _self: 4711)
    status, (record,) = await daemon.ask("/api/pull", {"model": "gemma4:e4b"})

    assert (status, record["code"]) == (507, "will_not_fit")
    assert "needed, 4711" in record["error"]
    assert daemon.network.sent == []


async def test_pulls_are_listed_and_cancelled(daemon):
    """By name; a second cancel is a 404."""
    daemon.network.gate.clear()
    pulling = asyncio.create_task(daemon.ask("/api/pull", {"model": "gemma4:e4b"}))
    await daemon.network.waits.wait()
    async with daemon.unix.get("/api/pulls") as answer:
        (job,) = (await answer.json())["pulls"]
    body = {"model": "gemma4:e4b"}
    async with daemon.unix.delete("/api/pulls", json=body) as answer:
        assert answer.status == 200

    assert (job["name"], job["clients"], job["detached"]) == ("gemma4:e4b", 1, False)
    assert job["total"] >= len(WEIGHTS)
    _, records = await pulling
    assert "cancelled" in records[-1]["error"]
    async with daemon.unix.delete("/api/pulls", json=body) as answer:
        assert answer.status == 404


async def test_a_client_that_hangs_up_ends_its_pull_unless_detached(daemon):
    """After the grace; what came stays for the next."""
    daemon.network.stop_after = 2
    for detach in (False, True):
        body = {"model": "gemma4:e4b", "detach": detach}
        answer = await daemon.unix.post("/api/pull", json=body)
        await daemon.network.waits.wait()
        answer.close()
        await asyncio.sleep(0.3)
        assert len(daemon.services.pulls.jobs()) == (1 if detach else 0)
        assert [p.completed for p in daemon.store.partials()] == [2 * CHUNK]


async def test_a_creation_is_made_of_everything_a_modelfile_says(daemon):
    """And `show` writes a Modelfile that makes the same again."""
    await daemon.ask("/api/pull", {"model": "nano"})
    body = {
        "model": "pirate", "from": "nano", "system": "Talk like\na \"pirate\".",
        "parameters": {"temperature": "0.25", "stop": ["x", "y z"], "num_gpu": 3},
        "template": "{{ messages }}", "license": ["My terms", "of use"],
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "arr"}],
        "draft_quantize": "int8",
    }  # fmt: skip
    status, records = await daemon.ask("/api/create", body)
    made = manifest(daemon, "pirate")

    assert (status, records[-1]) == (200, SUCCESS)
    stops = ["x", "y z"]
    assert made.parameters == {"temperature": 0.25, "stop": stops, "draft_quantize": "int8"}
    assert [turn.content for turn in made.messages] == ["hi", "arr"]
    shown = (await daemon.ask("/api/show", {"model": "pirate"}))[1][0]
    said = parse(shown["modelfile"])
    again = {
        "model": "again", "from": said.from_[0], "draft": said.draft, "system": said.system,
        "template": said.template, "license": list(said.licences), "parameters": said.parameters,
        "messages": [{"role": r, "content": c} for r, c in said.messages],
    }  # fmt: skip
    assert (await daemon.ask("/api/create", again))[1][-1] == SUCCESS
    copy = manifest(daemon, "again")
    for field in ("target", "drafter", "system", "messages", "parameters", "documents", "licence"):
        assert getattr(copy, field) == getattr(made, field), field


@pytest.mark.parametrize(("body", "word"), [
    ({"from": "nano", "parameters": {"temprature": 1}}, "temperature"),
    ({"from": "nano", "parameters": {"temperature": "hot"}}, "temperature"),
    ({"from": "nano", "template": "{{ .Prompt }}"}, "Go's language"),
    ({"from": "nano", "quantize": "q8_0"}, "int8"),
    ({"from": "nano", "messages": [{"role": "robot", "content": "x"}]}, "robot"),
    ({"from": "nano", "files": {"a.gguf": "sha256:" + "0" * 64}}, "More than one"),
    ({"files": {"a.gguf": "sha256:" + "0" * 64}}, "Upload it"),
    ({"files": {"a.gguf": "sha256:../../etc"}}, "not a digest"),
    ({}, "'from'"),
])  # fmt: skip
async def test_a_creation_that_cannot_be_is_a_400(daemon, body, word):
    """The message names the field or the parameter."""
    await daemon.ask("/api/pull", {"model": "nano"})
    status, records = await daemon.ask("/api/create", {"model": "x"} | body)

    assert (status, word in records[0]["error"]) == (400, True), records


async def test_a_creation_from_a_directory_over_the_socket(daemon, tmp_path):
    """Its files are taken over; a pull of the name says where it came from."""
    body = {"model": "mine", "from_path": str(write_pair(tmp_path / "mine"))}
    assert (await daemon.ask("/api/create", body))[1][-1] == SUCCESS
    status, (record,) = await daemon.ask("/api/pull", {"model": "mine"})

    assert manifest(daemon, "mine").drafter is not None
    assert (status, "gemma create" in record["error"]) == (400, True)


async def test_over_tcp_a_path_is_refused_alike_whether_or_not_it_is_there(daemon):
    """Byte for byte: nobody learns what files this machine has."""
    bodies = set()
    for path in ("/etc/passwd", "/etc/nothing-here", "/etc/shadow", "~/x"):
        for route, body in (
            ("/api/create", {"from_path": path}), ("/api/create", {"from": path}),
            ("/api/create", {"from": "nano", "draft_path": path}),
            ("/api/create", {"from": "nano", "draft": path}),
            ("/api/create", {"from": "nano", "adapter_path": path}),
            ("/api/pull", {"draft": path}), ("/api/draft", {"draft": path}),
            ("/api/import", {"source": "ollama", "store": path}),
            ("/api/export", {"format": "hf", "path": path}),
        ):  # fmt: skip
            async with daemon.tcp.post(route, json={"model": "nano"} | body) as answer:
                assert answer.status == 400, (route, body)
                bodies.add(await answer.read())

    assert len(bodies) == 1


async def test_a_drafter_is_set_and_removed(daemon):
    """Afterwards a pull of the name brings none back."""
    await daemon.ask("/api/pull", {"model": TARGET, "draft": "none"})
    status, records = await daemon.ask("/api/draft", {"model": TARGET, "draft": DRAFTER})
    assert (status, records[-1]) == (200, SUCCESS)
    assert manifest(daemon, TARGET).drafter_origin.source == DRAFTER

    async with daemon.unix.delete("/api/draft", json={"model": TARGET}) as answer:
        assert answer.status == 200
    await daemon.ask("/api/pull", {"model": TARGET})
    assert (manifest(daemon, TARGET).drafter, manifest(daemon, TARGET).draft) == (None, "none")


async def test_first_turns_and_packing_reach_the_runner(daemon, monkeypatch):
    """Behind the system message, before the conversation; not when an answer goes on."""
    await daemon.ask("/api/pull", {"model": "nano"})
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "arr"}]
    made = {
        "model": "p",
        "from": "nano",
        "system": "S",
        "messages": turns,
        "draft_quantize": "int8",
    }
    await daemon.ask("/api/create", made)
    got = []
    from tests.fakes.residency_fakes import InProcessRunner

    original = InProcessRunner.generate
    monkeypatch.setattr(
        InProcessRunner, "generate", lambda self, r: (got.append(r), original(self, r))[1]
    )
    ask = {"model": "p", "stream": False}
    await daemon.ask("/api/generate", ask | {"prompt": "go"})
    await daemon.ask("/api/generate", ask | {"prompt": "go", "context": [1]})
    own = [{"role": "system", "content": "T"}, {"role": "user", "content": "go"}]
    await daemon.ask("/api/chat", ask | {"messages": own})
    texts = ["".join(m.content + " " for m in request.messages) for request in got]

    assert texts == ["S hi arr go ", "S go ", "T hi arr go "]
    assert daemon.runners[0].load.draft_quantize == "int8"


async def test_an_import_passes_over_what_it_cannot_take(daemon, tmp_path):
    """All models of a store; one that is named and cannot be taken is an error."""
    broken = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "bad" / "latest"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    body = {"source": "ollama", "store": str(tmp_path / "ollama")}
    _, records = await daemon.ask("/api/import", body)

    assert [r["status"] for r in records if r["status"] != "pulling manifest"] == [
        "importing", "passed over", "success",
    ]  # fmt: skip
    assert (await daemon.ask("/api/import", body | {"model": "bad"}))[1][-1]["error"]
    assert (await daemon.ask("/api/import", {"source": "x"}))[0] == 400
