"""Streams end well whatever the client or the work does."""

import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from gemmad.api.errors import BadRequest, RunnerCrashed
from gemmad.server import streams


class Response(web.StreamResponse):
    """Keeps what is written; `stuck` never finishes a write, `gone` raises as a closed socket."""

    def __init__(self, mode="", **options) -> None:
        super().__init__(**options)
        self.mode = mode
        self.lines: list[bytes] = []

    async def prepare(self, request):
        return None

    async def write(self, data):
        if self.mode == "stuck":
            await asyncio.Event().wait()
        if self.mode == "gone":
            raise ConnectionResetError
        self.lines.append(data)

    async def write_eof(self, data=b""):
        return None


class Work:
    """Records one after the other, then an error; knows whether it was closed."""

    def __init__(self, *items) -> None:
        self.items = items
        self.closed = False

    async def __call__(self):
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                yield {"n": item}
        finally:
            self.closed = True


@pytest.fixture
def send(monkeypatch):
    """Streams work into a response of the given mode; returns its lines."""

    async def run(work, mode=""):
        made = []

        def response(**options):
            made.append(Response(mode, **options))
            return made[-1]

        monkeypatch.setattr(streams, "NdjsonResponse", response)
        await streams.ndjson(make_mocked_request("POST", "/"), work())
        return [json.loads(line) for line in made[0].lines]

    return run


async def test_records_are_lines(send):
    """One JSON object a line, in order."""
    assert await send(Work(1, 2)) == [{"n": 1}, {"n": 2}]


async def test_an_error_after_the_first_record_is_the_last_line(send):
    """In the dialect's words."""
    told = await send(Work(1, RunnerCrashed("it died", fix="Again.")))

    assert told == [{"n": 1}, {"error": "it died Again.", "code": "runner_crashed"}]


async def test_an_error_before_the_first_record_is_raised(send):
    """So that the status line can say it."""
    with pytest.raises(BadRequest):
        await send(Work(BadRequest("no")))


async def test_no_records_at_all_are_an_empty_stream(send):
    """Not an exception."""
    assert await send(Work()) == []


@pytest.mark.parametrize("mode", ["gone", "stuck"])
async def test_a_client_that_left_or_never_reads_ends_the_work(send, monkeypatch, mode):
    """The generator is closed, so the runner is told to cancel."""
    monkeypatch.setattr(streams, "WRITE_STALL_S", 0.01)
    work = Work(1, 2, 3)

    assert await send(work, mode) == []
    assert work.closed


async def test_records_that_come_together_are_written_together():
    """One write, a line each; those that come later have theirs."""
    writes: list[bytes] = []

    class Counting(streams.NdjsonResponse):
        async def write(self, data):
            writes.append(bytes(data))
            await super().write(data)

    async def records():
        yield [{"n": 1}, {"n": 2}]
        yield [{"n": 3}]

    async def handler(request):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "NdjsonResponse", Counting)
            return await streams.ndjson_together(request, records())

    app = web.Application()
    app.add_routes([web.get("/", handler)])
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/")
        lines = (await answer.read()).splitlines()

    assert [json.loads(line)["n"] for line in lines] == [1, 2, 3]
    assert writes == [b'{"n":1}\n{"n":2}\n', b'{"n":3}\n']
