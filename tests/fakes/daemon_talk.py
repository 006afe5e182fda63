"""Talks with a daemon over its port, as a program of another language would."""

import http.client
import json
import threading

from tests.fakes.daemon_process import DaemonProcess

JSON = {"Content-Type": "application/json"}
LISTENERS: list[threading.Thread] = []


def ask(port: int, path: str, body: object, method: str = "POST") -> tuple[int, list[dict]]:
    """Status and records."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, json.dumps(body) if body else None, JSON)
        answer = connection.getresponse()
        return answer.status, [json.loads(line) for line in answer.read().splitlines()]
    finally:
        connection.close()


def say(model: str, words: str = "hi", **more) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": words}]} | more


def running(port: int) -> list[dict]:
    return ask(port, "/api/ps", None, "GET")[1][0]["models"]


def pull(daemon: DaemonProcess, copies: int = 0) -> list[str]:
    """The built-in pair, under so many names more."""
    assert ask(daemon.port, "/api/pull", {"model": "nano"})[0] == 200
    names = [f"copy{index}" for index in range(copies)]
    for name in names:
        assert ask(daemon.port, "/api/copy", {"source": "nano", "destination": name})[0] == 200
    return names


def heard_out(daemon: DaemonProcess) -> None:
    """Somebody reads what the daemon says: a pipe holds 64 KiB."""
    LISTENERS.append(threading.Thread(target=lambda: all(map(str, daemon.process.stderr))))
    LISTENERS[-1].start()


def text(model: str, prompt: str = "Once upon a time", **options: object) -> dict:
    """A request to go on with a text; the same words every time."""
    chosen = {"seed": 3, "temperature": 1.0, "num_ctx": 2048} | options
    return {"model": model, "prompt": prompt, "raw": True, "options": chosen}


def stopped_listening() -> None:
    """The daemons have ended, and nobody reads any more."""
    while LISTENERS:
        LISTENERS.pop().join()
