"""/api/ps, /api/events and /metrics in front of a residency that shows a scene."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from gemmad.api.errors import Busy
from gemmad.dialects.ollama.replies import Clock
from gemmad.residency.seen import EventKind, ResidencyEvent
from gemmad.server import events, listening
from gemmad.server.app import create_app
from gemmad.server.counting import AnswerWatch, Counts, Histogram
from gemmad.server.listening import Listener, Listeners
from gemmad.server.services import Services
from gemmad.wire import Delta, Done
from tests.fakes.residency_fakes import STATS
from tests.fakes.seen_scenes import GIB, SCENE


class ShownResidency:
    """Shows the scene and does nothing."""

    def snapshot(self):
        return SCENE

    def residents(self):
        return ()


@pytest.fixture
def services() -> Services:
    clock = Clock(lambda: 0, lambda: 1, lambda: "call_1")
    return Services(None, None, None, ShownResidency(), clock, "1.2", 4096, "auto")  # type: ignore[arg-type]


@pytest.fixture
async def client(services: Services) -> AsyncIterator[TestClient]:
    server = TestServer(create_app(services), handler_cancellation=True)
    async with TestClient(server) as connected:
        yield connected


def told(kind: EventKind = EventKind.LOADED, reason: str = "") -> ResidencyEvent:
    """An event of nano."""
    return ResidencyEvent(1.0, kind, "nano:latest", reason)


async def line(answer: aiohttp.ClientResponse) -> dict:
    """The next record of a stream."""
    return json.loads(await answer.content.readline())


async def test_ps_is_the_snapshot(client: TestClient) -> None:
    """Models, budgets and the queue in one record."""
    record = await (await client.get("/api/ps")).json()

    assert [len(record[key]) for key in ("models", "budgets", "queue")] == [3, 2, 2]


async def test_events_begin_with_the_state(client: TestClient, services: Services) -> None:
    """A listener needs no second request, and misses nothing after it."""
    async with client.get("/api/events") as answer:
        first = await line(answer)
        services.events.publish(told(EventKind.LOADING))
        services.events.publish(told(EventKind.LOADED))

        assert (first["event"], len(first["models"])) == ("state", 3)
        assert [(await line(answer))["event"] for _ in range(2)] == ["loading", "loaded"]
        assert answer.content_type == "application/x-ndjson"


async def test_quiet_events_have_a_heartbeat(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener can tell a quiet daemon from a lost one."""
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.01)

    async with client.get("/api/events") as answer:
        seen = [(await line(answer))["event"] for _ in range(3)]

    assert seen == ["state", "heartbeat", "heartbeat"]


async def test_listener_that_reads_nothing_is_told_so_at_its_end(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not read does not grow, and publishing never waits."""
    monkeypatch.setattr(listening, "MOST_BEHIND", 3)
    async with client.get("/api/events") as answer:
        await line(answer)
        for _ in range(5):
            services.events.publish(told())

        rest = [json.loads(text) async for text in answer.content]

    assert rest[-1]["code"] == "busy"
    assert len(rest) <= 4


async def test_too_many_listeners_are_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 503 before anything is streamed."""
    monkeypatch.setattr(listening, "MOST_LISTENERS", 1)
    async with client.get("/api/events") as answer:
        await line(answer)

        refused = await client.get("/api/events")

    assert (refused.status, (await refused.json())["code"]) == (503, "busy")


async def test_place_of_a_listener_that_left_is_free(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving ends the handler, which gives its place back."""
    monkeypatch.setattr(listening, "MOST_LISTENERS", 1)
    async with client.get("/api/events") as answer:
        await line(answer)
        answer.close()

    async with asyncio.timeout(10):
        while (again := await client.get("/api/events")).status == 503:
            await again.read()

    assert (await line(again))["event"] == "state"


async def test_streams_of_events_end_with_the_daemon(services: Services) -> None:
    """Nobody waits for a listener that never leaves."""
    server = TestServer(create_app(services), handler_cancellation=True)
    async with TestClient(server) as client:
        answer = await client.get("/api/events")
        await line(answer)
        async with asyncio.timeout(5):
            closing = asyncio.create_task(server.close())
            assert await answer.content.read() == b""
            await closing


@pytest.mark.parametrize("path", ["/api/ps", "/api/events", "/metrics"])
async def test_what_is_seen_lies_behind_the_guard(client: TestClient, path: str) -> None:
    """A web page can read neither which models are loaded nor what is asked."""
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert (await client.get(path, headers=headers)).status in (403, 421)


async def scraped(client: TestClient) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by its name and the values of its labels."""
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(await answer.text()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_metrics_show_memory_by_kind(client: TestClient) -> None:
    """What of ours takes each device, and what it has."""
    found = await scraped(client)

    assert found["gemma_memory_bytes"]["cuda:0", "kv"] == 2 * GIB
    assert found["gemma_device_reserve_bytes"]["cpu",] == 2 * GIB
    assert found["gemma_queue_length"][()] == 2
    assert found["gemma_loads_total"][()] == 5
    assert found["gemma_build"]["1.2",] == 1


async def test_metrics_count_requests_by_route_and_status(client: TestClient) -> None:
    """A stranger's path is no label: it would make a series for every one."""
    await client.get("/api/version")
    await client.get("/api/version")
    await client.get("/nowhere/at/all")
    await client.get("/api/ps", headers={"Host": "evil.example"})

    found = (await scraped(client))["gemma_requests_total"]

    assert found["GET", "/api/version", "200"] == 2
    assert found["any", "none", "404"] == 1
    assert found["GET", "/api/ps", "421"] == 1


async def test_metrics_count_what_had_to_leave(client: TestClient, services: Services) -> None:
    """By kind, and by a reason of few words: not a series for each model's name."""
    for kind, reason in (
        (EventKind.EVICTED, "to make room for a"),
        (EventKind.EVICTED, "to make room for b"),
        (EventKind.DETACHED, "short of cuda:0"),
        (EventKind.RECLAIMED, "because"),
        (EventKind.LOADED, ""),
    ):
        services.counts.on_event(told(kind, reason))

    found = await scraped(client)

    assert found["gemma_evictions_total"] == {
        ("pair", "room"): 2, ("drafter", "pressure"): 1, ("prefixes", "other"): 1,
    }  # fmt: skip
    assert found["gemma_events_total"]["loaded",] == 1


async def test_metrics_count_drafts_by_position(client: TestClient, services: Services) -> None:
    """Over all answers, as the runners counted."""
    for positions in (((10, 8), (8, 3)), ((5, 5),)):
        services.counts.on_done(
            Done(
                id=1, reason="stop", prompt_tokens=7, prompt_ns=1, eval_tokens=20, eval_ns=1,
                draft=STATS, positions=positions,
            )
        )  # fmt: skip

    found = await scraped(client)

    assert found["gemma_drafted_total"] == {("1",): 15, ("2",): 8}
    assert found["gemma_accepted_total"] == {("1",): 13, ("2",): 3}
    assert found["gemma_answer_tokens_total"][()] == 40


async def test_metrics_time_an_answer(client: TestClient, services: Services) -> None:
    """Its wait, its first piece, and the time between pieces."""
    now = iter([0, 2_000_000_000, 3_000_000_000, 3_020_000_000])
    watch = AnswerWatch(services.counts, lambda: next(now))
    watch.granted()
    for text in "ab":
        watch.saw([Delta(id=1, text=text)])

    found = await scraped(client)

    assert found["gemma_wait_seconds_sum"][()] == 2
    assert found["gemma_first_token_seconds_bucket"]["5.0",] == 1
    assert found["gemma_first_token_seconds_bucket"]["2.5",] == 0
    assert found["gemma_inter_token_seconds_bucket"]["0.02",] == 1


def test_histogram_counts_a_bound_as_within() -> None:
    """As Prometheus does: `le`."""
    values = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        values.add(value)

    assert list(values.cumulative) == [("1.0", 2), ("2.0", 3), ("+Inf", 4)]


def test_metrics_library_is_not_imported_before_it_is_asked_for() -> None:
    """Most daemons are never measured: 11 MB."""
    import subprocess
    import sys

    code = "import sys, gemmad.app; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


async def test_closed_listener_reads_what_is_left() -> None:
    """The daemon's last events are not lost."""
    listener = Listener()
    listener.put(told())
    listener.close()

    assert await listener.next(1) == told()
    assert listener.is_over
    assert await listener.next(1) is None


def test_listeners_do_not_disturb_one_another() -> None:
    """One that reads nothing is late; another is not."""
    listeners = Listeners()
    with listeners.listening() as one, listeners.listening() as other:
        for _ in range(listening.MOST_BEHIND + 1):
            listeners.publish(told())
            if other._unread:
                other._unread.popleft()

        assert (one.is_late, other.is_late) == (True, False)


def test_too_many_listeners_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to do."""
    monkeypatch.setattr(listening, "MOST_LISTENERS", 0)
    with pytest.raises(Busy, match="listen already"), Listeners().listening():
        pass


def test_empty_counts_can_be_read() -> None:
    """A fresh daemon answers a scrape, too."""
    assert sum(count for _, count in Counts().waits.cumulative) == 0
