"""What made users of other programs write cron jobs that restart them, replayed on real processes.

R02 a stop that never ends, R04 a server that hangs after hours of use, R20 work for clients that
have left.
"""

import concurrent.futures
import http.client
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from gemmad.runners.starting import Deadlines
from tests.fakes.daemon_process import DaemonProcess, NanoDaemon
from tests.fakes.daemon_talk import (
    JSON,
    ask,
    heard_out,
    pull,
    running,
    say,
    stopped_listening,
    text,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="reads processes' figures in /proc"),
]

REQUESTS = int(os.environ.get("GEMMA_TEST_REQUESTS", "400"))
DISCONNECTS = int(os.environ.get("GEMMA_TEST_DISCONNECTS", "300"))
STOPPED_S = 14.0
# Nearly uniform random tokens: they go on until the context is full.
ENDLESS = {"temperature": 100, "top_k": 0, "top_p": 1, "num_ctx": 4096}


@pytest.fixture
def nano(tmp_path) -> Iterator[NanoDaemon]:
    home = NanoDaemon(tmp_path / "home")
    home.start()
    heard_out(home)
    pull(home)
    yield home
    home.process.kill()
    stopped_listening()
    home.close()


def opened(home: DaemonProcess, body: dict) -> tuple[http.client.HTTPConnection, object]:
    connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=120)
    connection.request("POST", "/api/generate", json.dumps(body), JSON)
    return connection, connection.getresponse()


def runner_of(home: DaemonProcess) -> psutil.Process:
    return psutil.Process(running(home.port)[0]["pid"])


def test_a_stop_ends_in_fourteen_seconds_whatever_the_runner_does(tmp_path):
    """R02: runners that answer no frame and ignore SIGTERM, in mid-stream: all of them are gone."""
    home = DaemonProcess(tmp_path / "home", endless=True, delay_s=0.01, ignore_sigterm=True)
    home.start("--max-loaded", "9")
    heard_out(home)
    names = pull(home, copies=8)
    streams = []
    for name in names:
        connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=120)
        connection.request("POST", "/api/chat", json.dumps(say(name)), JSON)
        answer = connection.getresponse()
        answer.readline()
        streams.append((connection, answer))
    runners = [psutil.Process(model["pid"]) for model in running(home.port)]
    for runner in runners[::2]:
        runner.suspend()  # neither frames nor signals but SIGKILL reach these

    def stop(name: str) -> float:
        began = time.monotonic()
        assert ask(home.port, "/api/generate", {"model": name, "keep_alive": 0})[0] == 200
        return time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        took = list(pool.map(stop, names))
    _, alive = psutil.wait_procs(runners, timeout=max(0.1, STOPPED_S - max(took)))
    lasts = [[json.loads(line) for line in answer.read().splitlines()][-1] for _, answer in streams]
    for connection, _ in streams:
        connection.close()
    home.process.kill()
    stopped_listening()
    home.close()

    assert alive == []
    assert max(took) < STOPPED_S
    assert all("error" in last for last in lasts)  # nobody's stream is left hanging


def test_hundreds_of_long_prompts_leave_no_trace(nano):
    """R04: one runner answers them all; threads, descriptors and memory stay what they were."""
    prompts = [" ".join(f"{word}{number}" for word in range(100)) for number in range(40)]
    asked = itertools.cycle(prompts)
    daemon = psutil.Process(nano.process.pid)

    def use(times: int) -> None:
        for _ in range(times):
            status, records = ask(
                nano.port, "/api/generate", text("nano", next(asked), num_predict=8)
            )
            assert (status, records[-1].get("done")) == (200, True), records[-1]

    def figures() -> list[tuple[int, int, int]]:
        return [(p.num_fds(), p.num_threads(), p.memory_info().rss) for p in (daemon, runner)]

    use(1)
    runner = runner_of(nano)
    use(REQUESTS // 4)
    before = figures()
    use(REQUESTS - REQUESTS // 4)
    after = figures()

    assert runner_of(nano).pid == runner.pid
    for (fds, threads, rss), (fds_then, threads_then, rss_then) in zip(before, after, strict=True):
        assert fds_then <= fds + 5
        assert threads_then <= threads + 2
        assert rss_then < 1.05 * rss


def test_an_endless_text_ends_where_its_context_does(nano):
    """R04: nothing shifts the context on and on: the answer is complete, and says why it ended."""
    records = ask(nano.port, "/api/generate", text("nano", **ENDLESS | {"num_ctx": 2048}))[1]

    assert records[-1]["done_reason"] == "length"
    assert records[-1]["eval_count"] + records[-1]["prompt_eval_count"] <= 2048


def test_a_runner_that_hangs_is_replaced_without_anybody_s_help(nano):
    """R04: frozen in mid-stream: its client is told, and the next request has a fresh one."""
    limits = Deadlines()
    connection, stream = opened(nano, text("nano", **ENDLESS))
    stream.readline()
    frozen = runner_of(nano)
    frozen.suspend()
    began = time.monotonic()
    last = [json.loads(line) for line in stream.read().splitlines()][-1]
    took_s = time.monotonic() - began
    connection.close()
    _, records = ask(nano.port, "/api/generate", text("nano", num_predict=2))

    assert last["code"] == "runner_crashed"
    assert "did not answer" in last["error"]
    assert took_s < limits.ping_missed_s + 2 * limits.ping_every_s
    assert records[-1]["done"]
    assert not frozen.is_running()


def test_no_work_is_done_for_clients_that_have_left(nano):
    """R20: they leave while they wait, in mid-prompt or mid-text, at random moments."""
    rng = random.Random(20)
    prompts = [" ".join(f"{word}" for word in range(start, start + 400)) for start in range(50)]
    ask(nano.port, "/api/generate", text("nano", num_predict=2, num_ctx=4096))
    runner = runner_of(nano)
    busy_s = []
    for number in range(DISCONNECTS):
        waiting = [text("nano", rng.choice(prompts), **ENDLESS) for _ in range(1 + number % 3)]
        connections = []
        for body in waiting:
            connection = http.client.HTTPConnection("127.0.0.1", nano.port, timeout=120)
            connection.request("POST", "/api/generate", json.dumps(body), JSON)
            connections.append(connection)
        time.sleep(rng.random() * 0.15)
        for connection in connections:
            connection.close()
        busy_s.append(_busy_after_leaving(nano, runner))
    _, records = ask(nano.port, "/api/generate", text("nano", num_predict=2, num_ctx=4096))
    busy_s.sort()

    assert records[-1]["done"]
    assert runner_of(nano).pid == runner.pid
    assert busy_s[len(busy_s) // 2] < 0.2  # of CPU: such a text takes seconds
    assert busy_s[-1] < 1.0


def _busy_after_leaving(home: NanoDaemon, runner: psutil.Process) -> float:
    """CPU seconds that the runner works on from here, until nobody uses it."""
    began = sum(runner.cpu_times()[:2])
    until = time.monotonic() + 10
    while running(home.port)[0]["active"] or running(home.port)[0].get("queued"):
        assert time.monotonic() < until, "it works for nobody"
    return sum(runner.cpu_times()[:2]) - began
