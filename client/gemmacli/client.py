"""The daemon's routes as methods; the only place that knows their paths."""

import json
from collections.abc import Callable, Iterator

from gemmacli.records import Json
from gemmacli.transport import Endpoint, error_from_record, exchange, went_away
from gemmad.api.errors import DaemonUnreachable

SHORT_TIMEOUT_S = 30.0


class DaemonClient:
    """Asks one daemon; holds no connection between calls.

    Every method raises DaemonUnreachable when the daemon is gone, and otherwise the GemmaError
    which the daemon sent.
    """

    def __init__(self, where: Endpoint) -> None:
        self.where = where

    def version(self) -> str:
        """The daemon's version."""
        return str(self._ask("GET", "/api/version").get("version", "unknown"))

    def models(self) -> Json:
        """What the store holds: `{"models": [...]}`."""
        return self._models("/api/tags")

    def running(self) -> Json:
        """What is loaded: `{"models": [...]}`."""
        return self._models("/api/ps")

    def show(self, model: str, *, verbose: bool = False) -> Json:
        """Everything known of one model."""
        return self._ask("POST", "/api/show", {"model": model, "verbose": verbose})

    def copy(self, source: str, destination: str) -> None:
        """`destination` names the same pair as `source`."""
        self._ask("POST", "/api/copy", {"source": source, "destination": destination})

    def delete(self, model: str) -> None:
        """The name is gone from the store."""
        self._ask("DELETE", "/api/delete", {"model": model})

    def unload(self, model: str) -> None:
        """The model is no longer in memory. Waits for it, however long the model takes."""
        body = {"model": model, "keep_alive": 0, "stream": False}
        self._ask("POST", "/api/generate", body, timeout_s=None)

    def complete(self, request: Json) -> Json:
        """A whole answer to one prompt, as its final record."""
        return self._ask("POST", "/api/generate", {**request, "stream": False}, timeout_s=None)

    def pull(self, model: str, quantize: str | None = None) -> Iterator[Json]:
        """Progress records until the model is in the store, to be loaded as `quantize` says."""
        wish = {} if quantize is None else {"quantize": quantize}
        return self._stream("/api/pull", {"model": model, **wish}, _pulled)

    def generate(self, request: Json) -> Iterator[Json]:
        """Records of an answer to one prompt; closing the iterator stops the work."""
        return self._stream("/api/generate", request, _done)

    def chat(self, request: Json) -> Iterator[Json]:
        """Records of an answer to a conversation; closing the iterator stops the work."""
        return self._stream("/api/chat", request, _done)

    def _models(self, path: str) -> Json:
        reply = self._ask("GET", path)
        return {**reply, "models": reply.get("models") or []}

    def _ask(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        timeout_s: float | None = SHORT_TIMEOUT_S,
    ) -> Json:
        with exchange(self.where, method, path, body, timeout_s) as response:
            text = response.read()
        return _record(text) if text.strip() else {}

    def _stream(self, path: str, body: Json, is_last: Callable[[Json], bool]) -> Iterator[Json]:
        with exchange(self.where, "POST", path, {**body, "stream": True}) as response:
            while line := response.readline():
                if not line.strip():
                    continue
                record = _record(line)
                if "error" in record:
                    raise error_from_record(record)
                yield record
                if is_last(record):
                    return
        # http.client takes a connection that broke between chunks for the end of the stream
        raise went_away(self.where)


def _done(record: Json) -> bool:
    return bool(record.get("done"))


def _pulled(record: Json) -> bool:
    return record.get("status") == "success"


def _record(text: bytes) -> Json:
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise DaemonUnreachable(f"The daemon sent what is not a JSON object: {text[:80]!r}.")
    return record
