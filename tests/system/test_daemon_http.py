"""A real daemon with fake runners, over TCP and its Unix socket."""

import asyncio
import json
import os
import signal
import socket
import stat

import aiohttp
import pytest

from tests.fakes.daemon_process import DaemonProcess

HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture
def make(tmp_path):
    """Makes daemons on one home; ends those still running."""
    made = []

    def build(**runner):
        made.append(DaemonProcess(tmp_path / "home", **runner))
        return made[-1]

    yield build
    for daemon in made:
        daemon.close()


@pytest.fixture
def daemon(make):
    running = make()
    running.start()
    return running


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One daemon for tests that leave it as it was."""
    running = DaemonProcess(tmp_path_factory.mktemp("shared") / "home")
    running.start()
    yield running
    running.close()


def over_tcp(daemon):
    return aiohttp.ClientSession(daemon.url)


def over_unix(daemon):
    connector = aiohttp.UnixConnector(str(daemon.socket))
    return aiohttp.ClientSession("http://gemmad", connector=connector)


async def pull(session):
    async with session.post("/api/pull", json={"model": "nano"}) as answer:
        return [json.loads(line) async for line in answer.content]


async def records(answer):
    return [json.loads(line) async for line in answer.content]


@pytest.mark.parametrize("connect", [over_tcp, over_unix])
async def test_pull_and_chat_on_both_transports(shared, connect):
    """The same API behind the port and the socket."""
    async with connect(shared) as session:
        assert (await pull(session))[-1] == {"status": "success"}
        async with session.post("/api/chat", json={"model": "nano", "messages": HELLO}) as answer:
            told = await records(answer)
        async with session.get("/") as answer:
            assert await answer.text() == "Gemma is running"

    assert "".join(r["message"]["content"] for r in told) == "echo: hello there"
    assert told[-1]["done_reason"] == "stop"
    assert told[-1]["draft"]["rounds"] > 0


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_head_is_answered_where_clients_knock(shared, path):
    """As Ollama does."""
    async with over_tcp(shared) as session, session.head(path) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(("method", "path", "body", "status", "word"), [
    ("POST", "/api/chat", b'{"model": "nope", "messages": []}', 404, "gemma pull nope"),
    ("POST", "/api/chat", b"{", 400, "JSON"),
    ("POST", "/api/chat", b"", 400, "no body"),
    ("POST", "/api/chat", b'{"model": 5}', 400, "model"),
    ("POST", "/api/chat", b'{"model": "nano", "options": {"temprature": 1}}', 400, "temperature"),
    ("POST", "/api/show", b'{"model": "../../etc/passwd"}', 400, "not a model name"),
    ("POST", "/api/pull", b'{"model": "gemma5:e4b"}', 404, "catalogue"),
    ("POST", "/api/copy", b'{"source": "nope", "destination": "x"}', 404, "not found"),
    ("POST", "/api/copy", b'{"source": "nope"}', 400, "destination"),
    ("DELETE", "/api/delete", b'{"model": "nope"}', 404, "not found"),
    ("POST", "/api/show", b"x" * 70_000, 413, "larger"),
    ("GET", "/api/nothing", None, 404, "not found"),
    ("GET", "/api/chat", None, 405, "not allowed"),
    ("PUT", "/api/tags", b"{}", 405, "not allowed"),
])  # fmt: skip
async def test_every_error_is_one_clear_sentence(shared, method, path, body, status, word):
    """JSON with `error` and `code`, the right status, and the daemon goes on."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    async with over_tcp(shared) as session:
        async with session.request(method, path, data=body, headers=headers) as answer:
            told = await answer.json()
        async with session.get("/api/version") as alive:
            assert alive.status == 200

    assert answer.status == status
    assert word in told["error"]
    assert told["code"]


@pytest.mark.parametrize(("headers", "status"), [
    ({"Host": "evil.com"}, 421), ({"Origin": "https://evil.com"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Content-Type": "text/plain"}, 415),
    ({"Content-Encoding": "gzip"}, 415),
])  # fmt: skip
@pytest.mark.parametrize("path", ["/api/chat", "/api/delete", "/api/unknown", "/"])
async def test_no_web_page_reaches_a_handler(shared, headers, status, path):
    """On known and unknown routes alike, with a JSON body that says why."""
    headers = {"Content-Type": "application/json"} | headers
    async with (
        over_tcp(shared) as session,
        session.post(path, data=b"{}", headers=headers) as answer,
    ):
        assert answer.status == status
        assert (await answer.json())["error"]
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_client_that_leaves_ends_its_work(make):
    """The runner is told to cancel, and is free for the next request."""
    daemon = make(endless=True, delay_s=0.01)
    daemon.start()
    async with over_tcp(daemon) as session:
        await pull(session)
        for _ in range(3):  # one slot: the next is answered only when the last one was cancelled
            answer = await session.post("/api/chat", json={"model": "nano", "messages": HELLO})
            async with asyncio.timeout(10):
                assert json.loads(await answer.content.readline())["done"] is False
            answer.close()

    assert "cancel 1" in daemon.runner_log()
    assert "cancel 2" in daemon.runner_log()


async def test_a_crashed_runner_tells_its_client_and_is_replaced(make):
    """The stream ends with an error line; the next request has a fresh runner."""
    daemon = make(crash_after=1)
    daemon.start()
    async with over_tcp(daemon) as session:
        await pull(session)
        pids = set()
        for _ in range(2):
            async with session.post(
                "/api/chat", json={"model": "nano", "messages": HELLO}
            ) as answer:
                told = await records(answer)
            assert answer.status == 200
            assert told[-1]["code"] == "runner_crashed"
            assert "SIGKILL" in told[-1]["error"]
            pids.add(told[-1]["error"])
        async with session.get("/api/ps") as answer:
            assert (await answer.json())["models"] == []


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_a_client_hears_of_a_killed_runner_within_a_second(make, path):
    """The last line is whole JSON with the error, and the stream ends properly."""
    daemon = make(endless=True, delay_s=0.01)
    daemon.start()
    async with over_tcp(daemon) as session:
        await pull(session)
        said = {"messages": HELLO} if path == "/api/chat" else {"prompt": "hello there"}
        body = {"model": "nano", **said}
        async with session.post(path, json=body) as answer:
            await answer.content.readline()
            async with session.get("/api/ps") as seen:
                [model] = (await seen.json())["models"]
            os.kill(model["pid"], signal.SIGKILL)
            async with asyncio.timeout(1.0):
                rest = await records(answer)

    assert rest[-1]["code"] == "runner_crashed"
    assert all("error" not in record for record in rest[:-1])


async def test_a_failed_load_has_its_own_status(make):
    """Nothing was sent yet, so the status line can say it."""
    daemon = make(load_error=["will_not_fit", "It needs 9 GiB, 2 are free."])
    daemon.start()
    async with over_tcp(daemon) as session:
        await pull(session)
        async with session.post("/api/generate", json={"model": "nano", "prompt": "x"}) as answer:
            assert answer.status == 507
            assert "9 GiB" in (await answer.json())["error"]


async def test_after_a_kill_the_next_daemon_has_every_model(make):
    """Stale socket and lock are taken over, nothing was lost."""
    first = make()
    first.start()
    async with over_unix(first) as session:
        await pull(session)
    first.kill()
    assert first.socket.exists()

    second = make()
    second.start()
    async with over_unix(second) as session, session.get("/api/tags") as answer:
        assert [m["name"] for m in (await answer.json())["models"]] == ["nano:latest"]


def test_a_second_daemon_names_the_first(daemon, make):
    """One daemon a home; the message holds the pid of the one that runs."""
    second = make().launch()
    _, said = second.communicate(timeout=30)

    assert second.returncode == 69
    assert f"pid {daemon.process.pid}" in said


async def test_a_taken_port_is_a_warning(make):
    """The socket serves without it, and a person who asks is told."""
    daemon = make()
    with socket.create_server(("127.0.0.1", daemon.port)):
        said = "".join(daemon.start())
        async with over_unix(daemon) as session, session.post("/api/doctor", json={}) as answer:
            places = (await answer.json())["places"]

    assert places["address"] == f"none: http://127.0.0.1:{daemon.port} is taken"
    assert f"cannot listen on http://127.0.0.1:{daemon.port}" in said


@pytest.mark.parametrize(("env", "word"), [
    ({"GEMMA_HOST": "0.0.0.0:11435"}, "loopback"),
    ({"GEMMA_KEEP_ALIVE": "soon"}, "GEMMA_KEEP_ALIVE"),
    ({"GEMMA_HOME": "/proc/nowhere"}, "/proc/nowhere"),
])  # fmt: skip
def test_a_bad_setting_stops_the_start_with_78(make, env, word):
    """One sentence, no traceback."""
    process = make().launch(**env)
    _, said = process.communicate(timeout=30)

    assert process.returncode == 78
    assert word in said
    assert "Traceback" not in said


async def test_sigterm_lets_a_running_answer_finish(make):
    """The stream ends whole, then the daemon is gone with code 0 and its socket too."""
    daemon = make(delay_s=0.05)
    daemon.start()
    async with over_tcp(daemon) as session:
        await pull(session)
        message = [{"role": "user", "content": "one two three four five six"}]
        async with session.post("/api/chat", json={"model": "nano", "messages": message}) as answer:
            await answer.content.readline()
            daemon.process.send_signal(signal.SIGTERM)
            told = await records(answer)

    assert told[-1]["done"] is True
    assert await asyncio.to_thread(daemon._ended) == 0
    assert not daemon.socket.exists()


async def test_prompts_never_reach_a_log_and_files_are_private(daemon):
    """Logs hold no words of users; everything is the user's alone."""
    canary = "xyzzy-canary-4711"
    async with over_tcp(daemon) as session:
        await pull(session)
        body = {"model": "nano", "prompt": canary, "stream": False}
        async with session.post(f"/api/generate?q={canary}", json=body) as answer:
            assert canary in (await answer.json())["response"]
    daemon.stop()

    for path in daemon.home.rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes()
        assert (
            stat.S_IMODE(path.lstat().st_mode) & (0o077 if "blobs" not in path.parts else 0o022)
            == 0
        )


async def test_deleting_a_loaded_model_unloads_it(daemon):
    """Neither name nor process nor blobs are left."""
    async with over_tcp(daemon) as session:
        await pull(session)
        async with session.post("/api/generate", json={"model": "nano"}) as answer:
            assert (await answer.json())["done_reason"] == "load"
        async with session.delete("/api/delete", json={"model": "nano"}) as answer:
            assert answer.status == 200
        async with session.get("/api/ps") as answer:
            assert (await answer.json())["models"] == []

    assert not [p for p in (daemon.home / "store" / "blobs").rglob("*") if p.is_file()]
