"""The daemon's routes as methods; the only place that knows their paths."""

import json
from collections.abc import Callable, Iterator

from gemmacli.json_object import Json
from gemmacli.transport import Endpoint, Upload, error_from_record, exchange, went_away
from gemmad.api.errors import DaemonUnreachable

SHORT_TIMEOUT_S = 30.0
SEARCH_TIMEOUT_S = 120.0  # the daemon asks a hub, which may be slow


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
        """What is loaded, each memory, and who waits: `{"models": [...], ...}`."""
        return self._models("/api/ps")

    def examine(self, script: Json | None = None) -> Json:
        """What the daemon sees of this computer, or would see of the one in a script."""
        return self._ask("POST", "/api/doctor", {"script": script} if script else {})

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

    def pull(self, model: str, wishes: Json | None = None) -> Iterator[Json]:
        """Progress records until the model is in the store, as `wishes` say."""
        return self._stream("/api/pull", {"model": model, **(wishes or {})}, _succeeded)

    def pulls(self) -> Json:
        """What is being pulled: `{"pulls": [...]}`."""
        reply = self._ask("GET", "/api/pulls")
        return {**reply, "pulls": reply.get("pulls") or []}

    def cancel_pull(self, model: str) -> None:
        """The pull of that name has ended; what it brought is kept for the next one."""
        self._ask("DELETE", "/api/pulls", {"model": model})

    def create(self, body: Json) -> Iterator[Json]:
        """Progress records until the name is made."""
        return self._stream("/api/create", body, _succeeded)

    def has_blob(self, digest: str) -> bool:
        """Whether the store has the file of that digest."""
        path = f"/api/blobs/{digest}"
        with exchange(self.where, "HEAD", path, None, SHORT_TIMEOUT_S, (404,)) as response:
            return response.status == 200

    def upload(self, digest: str, content: Upload) -> None:
        """The store has the file of that digest."""
        with exchange(self.where, "POST", f"/api/blobs/{digest}", content) as response:
            response.read()

    def attach_drafter(self, model: str, draft: str) -> Iterator[Json]:
        """Progress records until the model has that drafter."""
        return self._stream("/api/draft", {"model": model, "draft": draft}, _succeeded)

    def detach_drafter(self, model: str) -> None:
        """The model has no drafter."""
        self._ask("DELETE", "/api/draft", {"model": model})

    def available(self, text: str = "") -> Json:
        """What the catalogue offers: `{"models": [...]}`."""
        from urllib.parse import quote

        return self._models(f"/api/available?search={quote(text, safe='')}")

    def search(self, text: str) -> Json:
        """What the hub offers: `{"models": [...]}`."""
        reply = self._ask("POST", "/api/search", {"query": text}, SEARCH_TIMEOUT_S)
        return {**reply, "models": reply.get("models") or []}

    def collect_garbage(self, *, dry_run: bool) -> Json:
        """Files that no name needs, removed unless it is a dry run."""
        return self._ask("POST", "/api/gc", {"dry_run": dry_run}, timeout_s=None)

    def verify(self, model: str | None, *, repair: bool) -> Iterator[Json]:
        """A record for each file whose bytes were read again; None: of all names."""
        body = {"model": model} if model else {}
        return self._stream("/api/verify", {**body, "repair": repair}, _succeeded)

    def partials(self) -> Json:
        """Downloads that are not finished: `{"partials": [...], "bytes": N}`."""
        return self._ask("POST", "/api/partials", {})

    def remove_partials(self) -> Json:
        """Downloads that were not finished are gone; `{"bytes": N}` are free again."""
        return self._ask("DELETE", "/api/partials", timeout_s=None)

    def import_models(self, body: Json) -> Iterator[Json]:
        """Progress records until the models of another program's store are here."""
        return self._stream("/api/import", body, _succeeded)

    def export(self, body: Json) -> Iterator[Json]:
        """Progress records until the files are written."""
        return self._stream("/api/export", body, _succeeded)

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
        raise went_away(self.where)


def _done(record: Json) -> bool:
    return bool(record.get("done"))


def _succeeded(record: Json) -> bool:
    return record.get("status") == "success"


def _record(text: bytes) -> Json:
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise DaemonUnreachable(f"The daemon sent what is not a JSON object: {text[:80]!r}.")
    return record
