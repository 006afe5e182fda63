"""Residency with real processes: kills, turns, and memory that another program takes.

Runners are fakes, but for the last test: what is tried is the daemon.
"""

import http.client
import json
import os
import signal
import sys
import threading
import time

import psutil
import pytest

from tests.fakes.daemon_process import DaemonProcess
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
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="counts processes and descriptors in /proc"),
]

TURNS_S = float(os.environ.get("GEMMA_TEST_TURNS_S", "60"))
GONE_S = 2.0


@pytest.fixture
def daemon(tmp_path):
    made: list[DaemonProcess] = []

    def make(**runner) -> DaemonProcess:
        made.append(DaemonProcess(tmp_path / "home", **runner))
        return made[-1]

    yield make
    for one in made:
        if one.process:
            one.process.kill()
        stopped_listening()
        one.close()


def test_a_hundred_killed_daemons_leave_no_runner(daemon):
    """R05: whatever the daemon was doing, its runners are gone two seconds later."""
    home = daemon(delay_s=0.01, endless=True)
    home.start()
    pull(home)
    late = []
    for number in range(100):
        if home.process is None:
            home.start()
        body = json.dumps(say("nano"))
        connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=60)
        connection.request("POST", "/api/chat", body, JSON)
        if number % 2:  # in the middle of an answer, or of a load
            connection.getresponse().readline()
        children = psutil.Process(home.process.pid).children(recursive=True)
        home.kill()
        _, alive = psutil.wait_procs(children, timeout=GONE_S)
        late += [child.pid for child in alive]
        connection.close()

    assert late == []


def test_two_hundred_killed_runners_hurt_only_their_own_clients(daemon):
    """Each client reads one clear line within a second; the other pair's answer goes on.

    Two kills a name: the third within a minute would open its breaker.
    """
    home = daemon(delay_s=0.02, endless=True)
    home.start("--max-loaded", "3")
    heard_out(home)
    names = pull(home, copies=100)
    bystander = http.client.HTTPConnection("127.0.0.1", home.port, timeout=120)
    bystander.request("POST", "/api/chat", json.dumps(say("nano")), JSON)
    stream = bystander.getresponse()
    assert "error" not in json.loads(stream.readline())
    slowest = 0.0
    for name in names * 2:
        connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=60)
        connection.request("POST", "/api/chat", json.dumps(say(name)), JSON)
        answer = connection.getresponse()
        assert "error" not in json.loads(answer.readline())
        pid = next(m["pid"] for m in running(home.port) if m["name"] == f"{name}:latest")
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        last = [json.loads(line) for line in answer.read().splitlines()][-1]
        slowest = max(slowest, time.monotonic() - killed)
        assert last["code"] == "runner_crashed"
        connection.close()
        assert "error" not in json.loads(stream.readline())
    stream.close()
    bystander.close()
    status, records = ask(home.port, "/api/chat", say(names[0], options={"num_predict": 2}))

    assert slowest < 1.0
    assert (status, records[-1]["done"]) == (200, True)


def test_clients_that_take_turns_end_and_nothing_leaks(daemon):
    """R03, R07: two pairs, eight clients, two contexts, one place: answers or advice, for ever."""
    home = daemon()
    home.start("--max-loaded", "1")
    heard_out(home)
    pull(home, copies=1)
    process = psutil.Process(home.process.pid)
    counts: dict[int, int] = {}
    until = time.monotonic() + TURNS_S

    def client(number: int) -> None:
        while time.monotonic() < until:
            model = ("nano", "copy0")[number % 2]
            options = {"num_ctx": (1024, 2048)[number // 2 % 2]}
            status, records = ask(home.port, "/api/chat", say(model, options=options))
            counts[status] = counts.get(status, 0) + 1
            assert status in (200, 503), records
            time.sleep(0.05)

    def figures() -> tuple[int, int, int]:
        children = len(process.children(recursive=True))
        return process.num_fds() - children, process.num_threads(), process.memory_info().rss

    for _ in range(8):
        ask(home.port, "/api/chat", say("nano", options={"num_ctx": 1024}))
    before = figures()
    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TURNS_S + 60)
    hung = [thread for thread in threads if thread.is_alive()]
    time.sleep(2)
    after = figures()

    assert hung == []
    assert counts[200] > 10
    assert after[0] <= before[0] + 8  # connections that the server has not closed yet
    assert after[1] <= before[1] + 8  # the pool of threads has its own limit
    assert after[2] < before[2] + 20 * 2**20
    assert counts[503] > 0  # clients that take turns are told so


def eat(nbytes: int) -> "psutil.Popen":
    """A program beside us that holds so much memory."""
    words = "import sys,time; held = bytearray(int(sys.argv[1])); "
    words += "held[::4096] = b'x' * len(held[::4096]); print('fed', flush=True); time.sleep(600)"
    eater = psutil.Popen([sys.executable, "-c", words, str(nbytes)], stdout=-1, text=True)
    assert eater.stdout.readline() == "fed\n"
    return eater


def test_a_program_that_eats_memory_gets_the_idle_pair_and_the_busy_drafter(tmp_path):
    """The words of a running stream stay as they are, and it ends well. Real runners.

    The reserve is set just below what is free, so that the eater need not fill the machine. In
    which order they leave is seen under a limit of their own (test_residency_memory.py): here
    other programs take and give more than a drafter of nano has.
    """
    from tests.fakes.daemon_process import NanoDaemon

    # Nearly uniform random tokens: they go on until the context is full.
    long = text("nano", temperature=100, top_k=0, top_p=1, num_ctx=4096)
    home = NanoDaemon(tmp_path / "home")
    try:
        home.start("--spare", "0")
        pull(home, copies=1)
        alone = "".join(r["response"] for r in ask(home.port, "/api/generate", long)[1])
        home.stop()
        reserve = psutil.virtual_memory().available - (1 << 30)
        home.start("--spare", "0", "--reserve", str(reserve), "--max-loaded", "2")
        ask(
            home.port,
            "/api/generate",
            {"model": "copy0", "prompt": "hi", "options": {"num_predict": 2}},
        )
        connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=120)
        connection.request("POST", "/api/generate", json.dumps(long), JSON)
        answer = connection.getresponse()
        pieces = [json.loads(answer.readline())["response"] for _ in range(5)]
        eater = eat(1 << 30)
        try:
            records = [json.loads(line) for line in answer.read().splitlines()]
            connection.close()
            deadline = time.monotonic() + 10
            while any(m["name"].startswith("copy0") for m in running(home.port)):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            eater.kill()
            eater.wait()
            eater.stdout.close()
        log = (home.home / "logs" / "gemmad.log").read_text()
    finally:
        home.close()

    assert "".join(pieces + [r["response"] for r in records]) == alone
    assert records[-1]["done"]
    assert "unloaded copy0" in log
    assert "DETACH: nano" in log
    assert "unloaded nano" not in log.rsplit("loaded nano", 1)[1]
