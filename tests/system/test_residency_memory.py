"""Residency under a memory limit that the kernel keeps: daemon, runners and eater in one group."""

import contextlib
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from tests.fakes.daemon_process import DaemonProcess, NanoDaemon
from tests.fakes.daemon_talk import (
    JSON,
    ask,
    heard_out,
    pull,
    say,
    stopped_listening,
    text,
)
from tests.fakes.memory_group import MemoryGroup, NoMemoryGroup

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's"),
]

MIB = 1 << 20
KILLS = 50
ROOMY = 16 << 30
RESERVE = 64 * MIB
ORDER = [("detached", "copy0"), ("evicted", "copy0"), ("detached", "nano")]
_EATER = """
import sys
held = []
for line in sys.stdin:
    held.append(bytearray(int(line)))
    held[-1][::4096] = b"x" * len(held[-1][::4096])  # pages are there once they are touched
    print(len(held), flush=True)
"""


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        made = MemoryGroup.open(ROOMY)
    except NoMemoryGroup as error:
        pytest.skip(f"no control group with a memory limit can be made here: {error}")
    yield made
    made.close()


def log_of(home: DaemonProcess) -> list[str]:
    return (home.home / "logs" / "gemmad.log").read_text().splitlines()


class Eater:
    """A program in the group that takes memory when it is told to."""

    def __init__(self, group: MemoryGroup) -> None:
        command = group.inside([sys.executable, "-c", _EATER])
        self._process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)

    def eat(self, nbytes: int) -> None:
        print(nbytes, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Events:
    """Hears what happens, until the daemon ends."""

    def __init__(self, home: DaemonProcess) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=300)
        self._connection.request("GET", "/api/events")
        self._stream = self._connection.getresponse()
        self._came = threading.Condition()
        self.heard: list[tuple[str, str]] = []
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        for line in self._stream:
            event = json.loads(line)
            with self._came:
                self.heard.append((event["event"], event.get("model", "").split(":")[0]))
                self._came.notify_all()

    def come(self, event: tuple[str, str], within_s: float) -> bool:
        with self._came:
            return self._came.wait_for(lambda: event in self.heard, within_s)

    def close(self) -> None:
        self._listener.join()
        self._connection.close()


def test_fifty_oom_kills_hurt_nobody_else(tmp_path, group):
    """R08: the kernel takes the runner that ate, neither the daemon nor its neighbour."""
    home = DaemonProcess(tmp_path / "home", endless=True, delay_s=0.05)
    home.group = group
    home.start("--max-loaded", "3", "--reserve", "0")
    heard_out(home)
    names = pull(home, copies=KILLS // 2)  # two kills a name: a third would open its breaker
    daemon = home.process.pid
    bystander = http.client.HTTPConnection("127.0.0.1", home.port, timeout=120)
    bystander.request("POST", "/api/chat", json.dumps(say("nano")), JSON)
    stream = bystander.getresponse()
    stream.readline()
    group.limit(400 * MIB)
    lasts = [ask(home.port, "/api/chat", say(name, "eat"))[1][-1] for name in names * 2]
    heard = json.loads(stream.readline())
    alive = psutil.Process(daemon).is_running() and home.process.poll() is None
    stream.close()
    bystander.close()
    home.process.kill()
    stopped_listening()
    home.close()

    assert alive
    assert "error" not in heard
    assert {last["code"] for last in lasts} == {"runner_crashed"}
    assert all("out of memory" in last["error"] for last in lasts)


def test_a_load_that_the_system_kills_is_not_tried_blindly(tmp_path, group):
    """R08: once without the drafter, then in numbers, and soon the breaker is open."""
    home = DaemonProcess(tmp_path / "home", eats=True)
    home.group = group
    home.start("--reserve", "0")
    heard_out(home)
    pull(home)
    group.limit(300 * MIB)
    answers = [ask(home.port, "/api/chat", say("nano")) for _ in range(10)]
    home.process.kill()
    stopped_listening()
    home.close()
    failed = [line for line in log_of(home) if "loading nano" in line and "failed" in line]
    statuses = [status for status, _ in answers]
    first = answers[0][1][0]

    assert statuses[0] == 507
    assert "out of memory" in first["error"]
    assert "was estimated to take" in first["error"]
    assert set(statuses[1:]) <= {507, 503}
    assert statuses[2:] == [503] * 8
    assert len(failed) == 3


def test_memory_that_runs_short_is_given_in_order_and_no_word_changes(tmp_path, group):
    """The idle pair's drafter, then the idle pair, then the busy drafter; real runners.

    The eater takes each time what there is above the reserve, and a little more.
    """
    home = NanoDaemon(tmp_path / "home")
    home.group = group
    long = text("nano", temperature=100, top_k=0, top_p=1, num_ctx=4096)
    with contextlib.ExitStack() as ends:
        ends.callback(home.close)
        home.start()
        pull(home, copies=1)
        alone = "".join(r["response"] for r in ask(home.port, "/api/generate", long)[1])
        home.stop()
        home.start("--reserve", str(RESERVE), "--max-loaded", "2")
        events = ends.enter_context(contextlib.closing(Events(home)))
        ends.callback(home.close)  # before its events end
        ask(home.port, "/api/generate", text("copy0", num_predict=2))
        connection = http.client.HTTPConnection("127.0.0.1", home.port, timeout=120)
        ends.callback(connection.close)
        connection.request("POST", "/api/generate", json.dumps(long), JSON)
        answer = connection.getresponse()
        first = json.loads(answer.readline())
        group.limit(ROOMY - group.left + RESERVE + 24 * MIB)
        eater = ends.enter_context(contextlib.closing(Eater(group)))
        for gift in ORDER:
            for _ in range(5):  # what a process held is back a moment after its end
                eater.eat(max(0, group.left - RESERVE) + MIB)
                if events.come(gift, within_s=2.5):
                    break
            assert events.come(gift, within_s=0), events.heard
        records = [json.loads(line) for line in answer.read().splitlines()]

    assert [event for event in events.heard if event in ORDER] == ORDER
    assert "".join(r["response"] for r in (first, *records)) == alone
    assert records[-1]["done"]
