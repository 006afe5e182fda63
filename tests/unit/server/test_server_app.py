"""The application with runners in this process: bounds, streams and errors."""

import asyncio
import sys
from dataclasses import replace

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from gemmad import wire
from gemmad.api.errors import Busy, PromptTooLong, RunnerCrashed
from gemmad.core import ModelName
from gemmad.dialects.ollama.replies import Clock
from gemmad.residency.placing import WaysOf
from gemmad.server import bodies
from gemmad.server.app import ROUTES, create_app
from gemmad.server.services import Services
from gemmad.store.store import Store
from tests.fakes.played_residency import played_residency
from tests.fakes.residency_fakes import InProcessRunner, sized
from tests.fakes.store_scenes import put

NANO = ModelName.parse("nano")
CHAT = {"model": "nano", "messages": [{"role": "user", "content": "hi you"}]}


class Stage:
    """A store with nano and a residency of in-process runners, behind the real application."""

    def __init__(self, tmp_path) -> None:
        self.runners: list[InProcessRunner] = []
        self.loads: list[wire.Load] = []
        self.error: Exception | None = None
        self.store = Store(tmp_path / "store")
        put(self.store, "nano", b"{}")
        self.residency = played_residency(tmp_path, self.start, self.prepare)
        clock = Clock(lambda: 0, lambda: 1, lambda: "call_1")
        self.services = Services(self.store, None, None, self.residency, clock, "1", 4096, "off")

    def prepare(self, wanted, fit):
        files = self.store.pair_files(wanted.manifest)
        return wire.Load(files=files, num_ctx=fit.setting.num_ctx)

    async def start(self, load, *, name, on_progress):
        self.loads.append(load)
        if self.error:
            raise self.error
        self.runners.append(InProcessRunner(load, name))
        return self.runners[-1]


@pytest.fixture
async def stage(tmp_path):
    built = Stage(tmp_path)
    built.residency.start()
    yield built
    await built.residency.close()


@pytest.fixture
async def client(stage):
    server = TestServer(create_app(stage.services), handler_cancellation=True)
    async with TestClient(server) as connected:
        yield connected


async def test_a_body_that_never_comes_is_given_up(client, monkeypatch):
    """A silent client does not hold a handler for ever."""
    monkeypatch.setattr(bodies, "DEADLINE_S", 0.05)

    async def silence():
        yield b"{"
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json"}
    answer = await client.post("/api/chat", data=silence(), headers=headers)

    assert answer.status == 408
    assert (await answer.json())["code"] == "too_slow"


async def test_a_chunked_body_over_the_limit_is_cut_off(client):
    """Without a Content-Length the bytes are counted."""

    async def flood():
        for _ in range(100):
            yield b" " * 4096

    headers = {"Content-Type": "application/json"}
    answer = await client.post("/api/show", data=flood(), headers=headers)

    assert answer.status == 413


async def test_an_error_before_the_first_record_has_its_status(client, stage):
    """With Retry-After when the daemon is busy."""
    stage.error = Busy("full", retry_after_s=9)
    answer = await client.post("/api/chat", json=CHAT)

    assert (answer.status, answer.headers["Retry-After"]) == (503, "9")
    assert (await answer.json())["code"] == "busy"


async def test_a_crash_before_the_first_word_has_its_status(client, stage):
    """Nothing was sent yet, so the status line can say it."""
    await client.post("/api/generate", json={"model": "nano"})
    runner = stage.runners[0]
    runner.gate.clear()
    asking = asyncio.create_task(client.post("/api/chat", json=CHAT))
    await runner.asked.wait()
    runner.closed.set_result(RunnerCrashed("it died", fix="Again."))
    answer = await asking

    assert answer.status == 500
    assert (await answer.json()) == {"error": "it died Again.", "code": "runner_crashed"}


async def test_a_bug_is_a_500_without_details(client, monkeypatch):
    """No traceback, no path leaves the daemon."""

    def broken(_self):
        raise ValueError("/secret/path at 0x7f0000000000")

    monkeypatch.setattr(Store, "all", broken)
    answer = await client.get("/api/tags")

    assert answer.status == 500
    assert "secret" not in await answer.text()


class ShortRunner(InProcessRunner):
    """Its context has no room for any prompt, unless it is the whole one."""

    async def generate(self, request):
        if self.load.num_ctx < 4096:
            raise PromptTooLong("too long")
        async for event in super().generate(request):
            yield event


@pytest.mark.parametrize(("contexts", "status"), [([2048, 4096], 200), ([2048], 400)])
async def test_a_prompt_too_long_for_a_context_made_smaller(
    tmp_path, monkeypatch, contexts, status
):
    """It is answered in the whole context if memory has room by then, else refused as it was."""
    monkeypatch.setattr(sys.modules[__name__], "InProcessRunner", ShortRunner)
    stage = Stage(tmp_path)

    def ways(wanted, machine, rooms):
        sizes = [num_ctx for num_ctx in contexts if num_ctx > wanted.more_than]
        return sized()(replace(wanted, num_ctx=sizes[0]), machine, rooms) if sizes else ()

    stage.residency = played_residency(tmp_path, stage.start, stage.prepare, ways=WaysOf(ways))
    stage.services = replace(stage.services, residency=stage.residency)
    stage.residency.start()
    async with TestClient(TestServer(create_app(stage.services))) as client:
        answer = await client.post("/api/chat", json=CHAT | {"stream": False})
        told = await answer.json()
    await stage.residency.close()

    assert answer.status == status, told
    assert [load.num_ctx for load in stage.loads] == contexts


async def test_context_is_clamped_and_drafting_follows_the_setting(client, stage):
    """A context above the model's own is the model's; `draft` unset is the daemon's."""
    await client.post("/api/chat", json=CHAT | {"options": {"num_ctx": 100_000}})

    assert stage.loads[0].num_ctx == 8192


async def test_a_model_without_an_ability_says_so(client, stage):
    """Thinking on a model that cannot think is an error, not silence."""
    store = stage.store
    manifest = store.get(NANO)
    plain = msgspec.structs.replace(manifest.details, capabilities=("completion",))
    store.commit(msgspec.structs.replace(manifest, details=plain))
    answer = await client.post("/api/chat", json=CHAT | {"think": True})

    assert answer.status == 400
    assert "does not support thinking" in (await answer.json())["error"]


async def test_the_models_own_settings_apply_unless_the_request_says_otherwise(
    stage, client, monkeypatch
):
    """Parameters and system message of the manifest."""
    manifest = stage.store.get(NANO)
    own = {"temperature": 0.25, "num_ctx": 512}
    stage.store.commit(msgspec.structs.replace(manifest, parameters=own, system="be kind"))
    got = []
    original = InProcessRunner.generate

    def spy(self, request):
        got.append(request)
        return original(self, request)

    monkeypatch.setattr(InProcessRunner, "generate", spy)
    await client.post("/api/chat", json=CHAT | {"options": {"top_k": 3}})

    assert (got[0].sampling.temperature, got[0].sampling.top_k, got[0].draft) == (0.25, 3, "off")
    assert [m.role for m in got[0].messages] == ["system", "user"]
    assert stage.loads[0].num_ctx == 512


def test_every_route_is_in_the_table_once():
    """No path and method twice."""
    seen = [(route.method, route.path) for route in ROUTES]
    assert len(seen) == len(set(seen))
