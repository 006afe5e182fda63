"""Recorded conversations in Ollama's API, replayed through the pure functions and the server.

Each file under ollama/ holds a request's body, the frame a runner must get for it, the frames the
runner sends back, and the records the client must read.
"""

import itertools
import json
from pathlib import Path

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from gemmad import wire
from gemmad.dialects.ollama import requests
from gemmad.dialects.ollama.replies import Clock, Reply
from gemmad.server.app import create_app
from gemmad.server.services import Services
from gemmad.store.store import Store
from tests.fakes.played_residency import played_residency
from tests.fakes.residency_fakes import InProcessRunner
from tests.fakes.store_scenes import put

FILES = sorted(Path(__file__).with_name("ollama").glob("*.json"))
MEASURED = ("total_duration", "load_duration")


def clock() -> Clock:
    """Time stands still; ids count."""
    ids = (f"call_{n:08d}" for n in itertools.count())
    return Clock(lambda: 1_767_225_600_000_000_007, lambda: 900, lambda: next(ids))


def events(case) -> list:
    frames = [wire.decode_from_runner(json.dumps(event).encode()) for event in case["events"]]
    assert isinstance(frames[-1], wire.Done)
    return frames


class ScriptedRunner(InProcessRunner):
    """Plays recorded events and keeps the request it got."""

    def __init__(self, load, name, script) -> None:
        super().__init__(load, name)
        self.script = script
        self.got = None

    async def generate(self, request):
        self.got = request
        for event in self.script:
            yield [event]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def case(request):
    return json.loads(request.param.read_text())


def test_the_pure_functions_write_the_recorded_answer(case):
    """Body to meaning, events to records, without any server."""
    kind = requests.ChatBody if case["path"] == "/api/chat" else requests.GenerateBody
    read = requests.chat_request if kind is requests.ChatBody else requests.generate_request
    wanted = read(msgspec.convert(case["request"], kind))
    reply = Reply(wanted.called, kind is requests.ChatBody, clock(), began_ns=100)
    *deltas, done = events(case)

    records = [reply.delta(delta) for delta in deltas]
    records = [*records, reply.done(done)] if wanted.stream else [reply.whole(done)]

    assert msgspec.to_builtins(records) == [msgspec.to_builtins(r) for r in plain(case["response"])]


def plain(records):
    """Recorded lists as the tuples that frames hold."""
    for record in records:
        record["draft"] = record.get("draft") and msgspec.to_builtins(
            msgspec.convert(record["draft"], wire.DraftStats)
        )
        if record["draft"] is None:
            del record["draft"]
    return records


@pytest.fixture
async def stage(tmp_path, case):
    """A client of a server whose one runner plays the case."""
    store = Store(tmp_path / "store")
    put(store, "nano", b"{}")
    started = []

    async def start(load, *, name, on_progress):
        started.append(ScriptedRunner(load, name, events(case)))
        return started[-1]

    def prepare(want, fit):
        return wire.Load(files=store.pair_files(want.manifest), num_ctx=fit.setting.num_ctx)

    residency = played_residency(tmp_path, start, prepare)
    residency.start()
    services = Services(store, None, None, residency, clock(), "1", 4096, "auto")
    async with TestClient(TestServer(create_app(services))) as client:
        yield client, started
    await residency.close()


async def test_the_server_sends_the_recorded_answer(case, stage):
    """Byte for byte but for measured durations, and the runner gets the recorded frame."""
    client, started = stage
    response = await client.post(case["path"], json=case["request"])
    streamed = case["request"].get("stream", True)

    kind = "application/x-ndjson" if streamed else "application/json"
    assert (response.status, response.content_type) == (200, kind)
    lines = [json.loads(line) for line in (await response.read()).splitlines()]
    for line, expected in zip(lines, case["response"], strict=True):
        for key in MEASURED:
            assert line.pop(key, 1) > 0
            expected.pop(key, None)
        assert list(line) == list(expected)
        assert line == expected
    assert json.loads(msgspec.json.encode(started[0].got)) == case["frame"]
