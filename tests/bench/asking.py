"""Asks a daemon over HTTP as a client does; many streams at once, all from one thread.

Answers are parsed when they have ended, so that measuring costs little.
"""

import json
import selectors
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

PROMPT = "How do I pull a model? Tell me all about it, number {number}."
TIMEOUT_S = 600


class Answer(NamedTuple):
    """One streamed answer as its asker saw it; seconds from the asking on."""

    first_s: float
    end_s: float
    tokens: int
    rounds: int
    load_s: float = 0.0
    pieces: int = 0
    prompt_s: float = 0.0  # of it in the engine, from a slot to the first token

    @property
    def between_ms(self) -> float:
        """Milliseconds between tokens after the first."""
        return 1e3 * (self.end_s - self.first_s) / max(1, self.tokens - 1)


class _Stream:
    """An answer on its way."""

    def __init__(self, port: int, begun: float, request: bytes) -> None:
        self._begun = begun
        self._parts: list[bytes] = []
        self.first_s = self.end_s = 0.0
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.connection.sendall(request)

    def read(self) -> bool:
        """Takes what has come; False at the end."""
        part = self.connection.recv(1 << 16)
        if not part:
            self.connection.close()
            return False
        self.end_s = time.perf_counter() - self._begun
        if not self.first_s and b'{"' in part:
            self.first_s = self.end_s
        self._parts.append(part)
        return True

    @property
    def records(self) -> list[dict[str, Any]]:
        """All that was answered."""
        lines = b"".join(self._parts).splitlines()
        found = [json.loads(line) for line in lines if line.startswith(b"{")]
        assert found, lines[-5:]
        assert "error" not in found[-1], found[-1]
        return found


class Client:
    """Requests to one daemon."""

    def __init__(self, port: int, model: str, tokens: int) -> None:
        self._port, self._model, self._tokens = port, model, tokens

    def answers(self, numbers: Sequence[int], draft: str | int) -> list[Answer]:
        """Greedy streamed answers to the prompts of these numbers, asked for at once.

        All times count from the first asking on; a pair may end an answer sooner.
        """
        options = {"temperature": 0, "num_predict": self._tokens}
        bodies = [{"prompt": PROMPT.format(number=n), "draft": draft} for n in numbers]
        streams = self._ask("/api/generate", [body | {"options": options} for body in bodies])
        return [_answer(stream) for stream in streams]

    def answer(self, number: int, draft: str | int) -> Answer:
        """One of them."""
        return self.answers([number], draft)[0]

    def post(self, path: str, **fields: object) -> dict[str, Any]:
        """The last record of an answer."""
        return self._ask(path, [fields])[0].records[-1]

    def _ask(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[_Stream]:
        requests = [self._request(path, {"model": self._model, **body}) for body in bodies]
        begun = time.perf_counter()
        streams = [_Stream(self._port, begun, request) for request in requests]
        with selectors.DefaultSelector() as selector:
            for stream in streams:
                selector.register(stream.connection, selectors.EVENT_READ, stream)
            while selector.get_map():
                for key, _ in selector.select():
                    if not key.data.read():
                        selector.unregister(key.fileobj)
        return streams

    def _request(self, path: str, body: object) -> bytes:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        return head.encode() + data


def _answer(stream: _Stream) -> Answer:
    records = stream.records
    last = records[-1]
    assert last.get("done"), last
    rounds = (last.get("draft") or {}).get("rounds", 0)
    load_s = last["load_duration"] / 1e9
    return Answer(
        stream.first_s,
        stream.end_s,
        last["eval_count"],
        rounds,
        load_s,
        len(records) - 1,
        last["prompt_eval_duration"] / 1e9,
    )
