"""Clients that leave, runners and daemons that are killed: nothing of them is left behind."""

import json
import os
import select
import signal
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.timeout(240)

GONE_S = 2.0
# A text of nearly uniform random tokens: it goes on for thousands of them.
ENDLESS = {
    "model": "nano",
    "prompt": "Once upon a time",
    "raw": True,
    "options": {"temperature": 100, "top_k": 0, "top_p": 1, "seed": 3, "num_ctx": 4096},
}
SHORT = {"model": "nano", "prompt": "hi", "options": {"num_predict": 2}}


def test_a_killed_runner_is_one_clear_line_and_the_next_request_works(nano):
    """SIGKILL in mid-stream: the client reads why, and a fresh runner serves on."""
    with nano.open("POST", "/api/generate", ENDLESS) as response:
        begun = [json.loads(response.readline()) for _ in range(3)]
        old = nano.running["pid"]
        os.kill(old, signal.SIGKILL)
        *rest, last = [json.loads(line) for line in response.read().splitlines()]
    after = nano.records("/api/generate", SHORT)

    assert not any(record.get("error") for record in begun + rest)
    assert last["code"] == "runner_crashed"
    assert "SIGKILL" in last["error"]
    assert after[-1].get("done"), after[-1]
    assert nano.running["pid"] != old


def test_a_client_that_leaves_stops_the_engine(nano):
    """R20: the one slot is free for the next request long before the text would have ended."""
    with nano.open("POST", "/api/generate", ENDLESS) as response:
        response.readline()
        began = time.monotonic()
        pieces = [json.loads(response.readline()) for _ in range(30)]
        pace_s = (time.monotonic() - began) / 30
    left = time.monotonic()
    answer = nano.records("/api/generate", SHORT)
    waited_s = time.monotonic() - left

    assert not pieces[-1]["done"]
    assert answer[-1]["done"]
    assert waited_s < 500 * pace_s  # of about 4,000 such pieces
    assert nano.running["active"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs PDEATHSIG and pidfd")
def test_no_runner_outlives_a_killed_daemon(nano):
    """SIGKILL in mid-stream: runner and template worker are gone in two seconds."""
    with nano.open("POST", "/api/generate", ENDLESS) as response:
        response.readline()
        runner = psutil.Process(nano.running["pid"])
        deaths = [os.pidfd_open(process.pid) for process in (runner, *runner.children())]
        began = time.monotonic()
        nano.kill()
    for death in deaths:
        left_s = GONE_S - (time.monotonic() - began)
        assert select.select([death], [], [], max(0.0, left_s))[0], "a process lives on"
        os.close(death)
