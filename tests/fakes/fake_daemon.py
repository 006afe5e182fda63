"""A daemon without an engine: a real HTTP server on a Unix socket with the routes a client needs.

`FakeTcpDaemon` is the same on a TCP port of its own. What makes and looks after names is in
`fake_store_routes`.

Words of an answer come one a record. What it says follows from the last user text:

    "fail ..."  an error in the middle of the stream   "forever"  words until the client leaves
    "cut ..."   the connection closes without an end   else       "echo: <the text>"

`python -m tests.fakes.fake_daemon` serves as a process, where `gemmad.api.paths` says.
"""

import json
import os
import signal
import socketserver
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from gemmad.api.paths import socket_path
from gemmad.api.version import VERSION
from tests.fakes.fake_store_routes import Refusal, StoreRoutes, full

DIGEST = "3f2a9c0d11e2" + "0" * 52
DRAFTER = {
    "digest": "77" * 32,
    "size": 3_800_000,
    "parameter_size": "1.9M",
    "source": {"source": "hf.co/me/nano-assistant", "revision": "5" * 40},
}
GIB = 1 << 30
EXAMINED = {
    "version": VERSION,
    "devices": [
        {"id": "cuda:0", "name": "RTX 4090", "usable": True, "note": ""},
        {"id": "rocm-unused:0", "name": "RX 7900", "usable": False, "note": "no ROCm build"},
        {"id": "cpu", "name": "x86_64", "usable": True, "note": ""},
    ],
    "budgets": [
        {"id": "cuda:0", "total": 24 * GIB, "free": 6 * GIB, "devices": ["cuda:0"]},
        {"id": "cpu", "total": 64 * GIB, "free": 48 * GIB, "devices": ["cpu"]},
    ],
    "host": {"total": 64 * GIB, "available": 48 * GIB, "pressure": 2.0},
    "software": {
        "torch": "2.13.0+cpu",
        "triton": False,
        "kernels": "torch",
        "cpu_kernels": "native kernels for avx2",
    },
    "store": {"models": 1, "broken": ["old:latest"], "free": 9 * GIB},
    "places": {"store": "/s"},
    "catalogue": [
        {"name": "gemma4:e4b", "needed_bytes": 19 * GIB, "fits": "gpu", "why": ""},
        {"name": "gemma4:31b", "needed_bytes": 70 * GIB, "fits": "no", "why": "it needs 70 GiB"},
    ],
    "notes": ["the driver is old"],
}
MILLISECOND = 1_000_000
TOKEN_NS = {"off": 10 * MILLISECOND, "auto": 5 * MILLISECOND}


def stored(name: str) -> dict:
    return {
        "name": name,
        "model": name,
        "digest": DIGEST,
        "size": 31_200_000,
        "modified_at": "2026-11-20T10:00:00.123456789Z",
        "details": {"family": "gemma4", "parameter_size": "13.7M", "format": "safetensors"},
        "drafter": DRAFTER,
    }


class State:
    """Everything the fake knows; the handlers write it under the lock, tests read it after."""

    def __init__(self, models: tuple[str, ...], pullable: tuple[str, ...], version: str) -> None:
        self.lock = threading.Lock()
        self.models = {full(name): stored(full(name)) for name in models}
        self.pullable = {full(name) for name in pullable}
        self.loaded: dict[str, dict] = {}
        self.requests: list[tuple[str, dict]] = []
        self.left = threading.Event()  # set when a client hung up in the middle of an answer
        self.version = version
        self.hostile_drafter = False  # drafted answers then differ from plain ones
        self.blobs: dict[str, bytes] = {}
        self.jobs: dict[str, dict] = {}  # pulls that run
        self.partials: list[dict] = []
        self.garbage: list[dict] = []
        self.bad_files: dict[str, str] = {}  # model -> file that verify finds damaged
        self.cannot_read = False  # files of this machine: the daemon runs as somebody else
        self.hub_is_down = False
        self.notes: list[str] = []
        self.seen: dict = {}  # what ps says beside the models

    def stored(self, name: str) -> dict:
        return stored(name)


class _Serving:
    """Serves from a thread while the block lasts."""

    daemon_threads = True
    state: State

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is no event."""

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def asked(self) -> list[dict]:
        """Bodies of generate and chat requests that had something to answer."""
        answers = ("/api/generate", "/api/chat")
        return [body for path, body in self.state.requests if path in answers and text_of(body)]

    def sent(self, path: str) -> list[dict]:
        """Bodies of the requests for `path`."""
        return [body for asked, body in self.state.requests if asked == path]


class FakeTcpDaemon(_Serving, socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens on a free port of the loopback address."""

    local = False

    def __init__(self) -> None:
        self.state = State(("nano",), ("nano",), VERSION)
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class FakeDaemon(_Serving, socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens on a socket file."""

    local = True

    def __init__(
        self,
        path: Path,
        *,
        models: tuple[str, ...] = ("nano",),
        pullable: tuple[str, ...] = ("nano",),
        version: str = VERSION,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self.path = path
        self.state = State(models, pullable, version)
        super().__init__(str(path), Handler)

    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("local", 0)  # BaseHTTPRequestHandler wants an address

    def __exit__(self, *exits) -> None:
        super().__exit__(*exits)
        self.path.unlink(missing_ok=True)


def text_of(body: dict) -> str:
    if messages := body.get("messages"):
        return messages[-1]["content"]
    return body.get("prompt") or ""


class Handler(StoreRoutes, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeDaemon | FakeTcpDaemon

    def do_GET(self) -> None:
        self._route()

    do_POST = do_DELETE = do_HEAD = do_GET

    def log_message(self, *_) -> None:
        """Tests read the socket, not a log."""

    def _route(self) -> None:
        path, _, self.query = self.path.partition("?")
        if path.startswith("/api/blobs/"):
            self._blob(path.removeprefix("/api/blobs/"))
            return
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        state, name = self.server.state, path.replace("/", "_")
        state.requests.append((path, body))
        route = getattr(self, f"{self.command.lower()}{name}", None)
        try:
            with state.lock:
                answer = (route or getattr(self, f"route{name}"))(state, body)
        except Refusal as refusal:
            self._reply(refusal.status, refusal.record)
            return
        if isinstance(answer, dict):
            self._reply(200, answer)
        else:
            self._stream(answer)

    def _reply(self, status: int, record: dict) -> None:
        data = json.dumps(record).encode() if record else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, records: Iterator[dict | None]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        try:
            for record in records:
                if record is None:
                    return
                line = json.dumps(record).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.state.left.set()

    def route_api_version(self, state: State, body: dict) -> dict:
        return {"version": state.version}

    def route_api_tags(self, state: State, body: dict) -> dict:
        return {"models": list(state.models.values())}

    def route_api_ps(self, state: State, body: dict) -> dict:
        return {"models": list(state.loaded.values()), **state.seen}

    def route_api_doctor(self, state: State, body: dict) -> dict:
        return {**EXAMINED, "simulated": "script" in body}

    def route_api_show(self, state: State, body: dict) -> dict:
        model = self._model(state, body["model"])
        return {
            **{key: model[key] for key in ("details", "drafter", "modified_at")},
            "modelfile": "FROM nano\nPARAMETER temperature 1\n",
            "source": {"source": "builtin:nano", "revision": "1" * 40},
            "messages": model.get("messages", []),
            "adapter": model.get("adapter", []),
            "notes": state.notes,
            "parameters": "temperature                    1\ntop_k                          64",
            "template": "{{ messages }}",
            "system": "You are nano.",
            "license": "Apache-2.0\nline 2\nline 3\nline 4\n",
            "capabilities": ["completion", "tools", "thinking"],
            "model_info": {"gemma4.block_count": 10},
        }

    def route_api_copy(self, state: State, body: dict) -> dict:
        self._model(state, body["source"])
        name = full(body["destination"])
        state.models[name] = stored(name)
        return {}

    def route_api_delete(self, state: State, body: dict) -> dict:
        self._model(state, body["model"])
        del state.models[full(body["model"])]
        return {}

    def route_api_generate(self, state: State, body: dict) -> dict | Iterator[dict | None]:
        return self._answer(state, body, lambda text: {"response": text})

    def route_api_chat(self, state: State, body: dict) -> dict | Iterator[dict | None]:
        return self._answer(
            state, body, lambda text: {"message": {"role": "assistant", "content": text}}
        )

    def _model(self, state: State, name: str) -> dict:
        if full(name) not in state.models:
            text = f"model '{name}' not found. Pull it with: gemma pull {name}"
            raise Refusal(404, "model_not_found", text)
        return state.models[full(name)]

    def _answer(self, state: State, body: dict, shape) -> dict | Iterator[dict | None]:
        model = self._model(state, body["model"])
        if body.get("format"):
            raise Refusal(400, "bad_request", "format: structured output is not supported yet.")
        if body.get("keep_alive") == 0 and not text_of(body):
            state.loaded.pop(model["name"], None)
            return {"model": body["model"], "done": True, "done_reason": "unload"}
        state.loaded[model["name"]] = {
            **model,
            "expires_at": "2126-11-23T18:00:00Z",
            "context_length": 4096,
            "device": "cpu",
            "target": {"device": "cpu", "size": 27_400_000, "why": ""},
            "drafter": {
                "loaded": True,
                "state": "attached",
                "device": "cpu",
                "size": DRAFTER["size"],
                "note": None,
            },
        }
        if not text_of(body):
            return {"model": body["model"], "done": True, "done_reason": "load"}
        if body.get("stream", True):
            return streamed(state, body, shape)
        return {**final(body), **shape("".join(words(state, body)))}


def words(state: State, body: dict) -> list[str]:
    drafted = body.get("draft") != "off"
    text = "ECHO: " if state.hostile_drafter and drafted else "echo: "
    return [part + " " for part in (text + text_of(body)).split(" ")[:-1]] + [
        text_of(body).split(" ")[-1]
    ]


def streamed(state: State, body: dict, shape) -> Iterator[dict | None]:
    head = {"model": body["model"], "created_at": "2026-11-23T18:00:00Z", "done": False}
    if body.get("think"):
        yield {**head, **thinking(shape)}
    if text_of(body) == "forever":
        while True:
            yield {**head, **shape("on ")}
    for number, word in enumerate(words(state, body)):
        yield {**head, **shape(word)}
        if number == 1 and text_of(body).startswith("fail"):
            yield {"error": "The runner died.", "code": "runner_crashed"}
            return
        if number == 1 and text_of(body).startswith("cut"):
            yield None
    yield {**head, **shape(""), **final(body), "done": True}


def thinking(shape) -> dict:
    if "message" in shape(""):
        return {"message": {"role": "assistant", "content": "", "thinking": "Hm, let me see."}}
    return {"response": "", "thinking": "Hm, let me see."}


def final(body: dict) -> dict:
    count = len(text_of(body).split()) + 1
    mode = "off" if body.get("draft") == "off" else "auto"
    off = {"depth": 0, "rounds": count, "drafted": 0, "accepted": 0, "per_position": []}
    drafted = {"depth": 4, "rounds": 2, "drafted": 8, "accepted": 6, "per_position": [0.9, 0.8]}
    rate = {"tokens_per_round": 1.0 if mode == "off" else count / 2}
    return {
        "model": body["model"],
        "done": True,
        "done_reason": "stop",
        "total_duration": 300 * MILLISECOND,
        "load_duration": 0,
        "prompt_eval_count": 12,
        "prompt_eval_duration": 24 * MILLISECOND,
        "eval_count": count,
        "eval_duration": count * TOKEN_NS[mode],
        "draft": (off if mode == "off" else drafted) | rate,
    }


def main() -> None:
    if message := os.environ.get("FAKE_DAEMON_DIES"):
        print(message, file=sys.stderr)
        raise SystemExit(3)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with FakeDaemon(socket_path(), models=()):
        print(f"fake daemon {os.getpid()} serves", flush=True)
        stop.wait(30)


if __name__ == "__main__":
    main()
