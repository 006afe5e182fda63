"""A hub on loopback with a CDN on another host name and port: add repositories, ask, break things.

hub = FakeHub()                      # or the fixture `hub` of tests that define one
hub.start()
commit = hub.add("google/gemma-4-nano-it", {"config.json": b"{}", "model.safetensors": path})
api = HfApi(endpoint=hub.url, token=False)
hub.misbehave("reset", path="*.safetensors", where="cdn", at=1000, times=2)
hub.bytes_sent("cdn"), hub.tokens_seen("cdn"), hub.requests
hub.stop()
"""

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from tests.fakes.hub.faults import Fault, Kind
from tests.fakes.hub.listener import Listener, Seen
from tests.fakes.hub.protocol import Protocol
from tests.fakes.hub.repository import HubFile, HubRepository


class FakeHub:
    """The hub and its CDN; every method may be called while clients talk to it."""

    def __init__(self, cdn_host: str = "localhost") -> None:
        self.protocol = Protocol()
        self.requests: list[Seen] = []  # every request, in the order of arrival
        self._hub = Listener("hub", "127.0.0.1", self.protocol, self.requests)
        self._cdn = Listener("cdn", cdn_host, self.protocol, self.requests)
        self.protocol.hub_netloc, self.protocol.cdn_netloc = self._hub.netloc, self._cdn.netloc

    def start(self) -> "FakeHub":
        """Both halves answer."""
        self._hub.start()
        self._cdn.start()
        return self

    def stop(self) -> None:
        """Nothing listens any more, stalled answers included."""
        self._hub.stop()
        self._cdn.stop()

    def __enter__(self) -> "FakeHub":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What `HF_ENDPOINT` is set to."""
        return f"{'https' if self._hub.tls else 'http'}://{self._hub.netloc}"

    @property
    def cdn_url(self) -> str:
        """Where the bytes of LFS files are."""
        return f"http://{self._cdn.netloc}"

    def file_url(self, repo: str, name: str, revision: str = "main") -> str:
        """What `hf_hub_url` gives for the file."""
        return f"{self.url}/{repo}/resolve/{quote(revision, safe='')}/{quote(name)}"

    def add(
        self,
        repo: str,
        files: Mapping[str, bytes | Path],
        *,
        revision: str = "main",
        gated: bool = False,
        private: bool = False,
        info: Mapping[str, Any] | None = None,
        sha256: Mapping[str, str] | None = None,
    ) -> str:
        """The branch holds exactly these files; returns the commit. `sha256` spares hashing."""
        known = sha256 or {}
        content = {name: HubFile.of(name, data, known.get(name)) for name, data in files.items()}
        repository = self.protocol.repositories.setdefault(repo, HubRepository(repo))
        repository.gated, repository.private = gated, private
        repository.info.update(info or {})
        return repository.commit(revision, content)

    def remove(self, repo: str) -> None:
        """The repository is gone."""
        del self.protocol.repositories[repo]

    def rename(self, repo: str, new: str) -> None:
        """The repository has another name; the old one redirects."""
        repository = self.protocol.repositories.pop(repo)
        repository.id = new
        self.protocol.repositories[new] = repository
        self.protocol.moved[repo] = new

    def accept(self, token: str) -> None:
        """The token opens gated and private repositories; `hf_good` does from the start."""
        self.protocol.accepted_tokens.add(token)

    def expire_links(self) -> None:
        """CDN links given so far answer 403; new ones are had from the hub."""
        self.protocol.signature += 1

    def encrypt(self, context: ssl.SSLContext) -> None:
        """The hub, not its CDN, speaks TLS from now on."""
        self._hub.tls = context

    def narrow(self, send_buffer: int = 16 << 10) -> None:
        """Little is sent that the client does not read: for counting bytes."""
        self._hub.send_buffer = self._cdn.send_buffer = send_buffer

    def drop_connections(self) -> None:
        """Every open connection is cut."""
        self._hub.drop_connections()
        self._cdn.drop_connections()

    def misbehave(self, kind: Kind, **how: Any) -> Fault:
        """A fault from now on, see `faults.Fault`; returned so that `happened` can be asserted."""
        fault = Fault(kind, **how)
        self.protocol.faults.append(fault)
        return fault

    def behave(self) -> None:
        """No faults from now on."""
        self.protocol.faults.clear()

    def sent_for(self, pattern: str) -> int:
        """Bytes of bodies sent for files whose name matches."""
        return sum(s.sent for s in list(self.requests) if fnmatch(_file_name(s), pattern))

    def bytes_sent(self, where: str | None = None) -> int:
        """Bytes of bodies sent by the hub, the CDN, or both."""
        return sum(s.sent for s in list(self.requests) if where in (s.where, None))

    def tokens_seen(self, where: str) -> set[str]:
        """Tokens that the hub or the CDN was shown, in any header or URL."""
        seen = [s for s in list(self.requests) if s.where == where]
        return {s.token for s in seen if s.token}

    def saw(self, where: str, text: str) -> bool:
        """Whether `text` came to that half in any part of any request."""
        return any(
            text in part
            for s in list(self.requests)
            if s.where == where
            for part in (s.path, s.query, s.body.decode(errors="replace"), *s.headers.values())
        )

    @property
    def dials(self) -> dict[str, int]:
        """Connections accepted by either half."""
        return {"hub": self._hub.dials, "cdn": self._cdn.dials}


def _file_name(seen: Seen) -> str:
    if seen.where == "cdn":
        return parse_qs(seen.query).get("name", [""])[0]
    return seen.path.rsplit("/", 1)[-1]


@contextlib.contextmanager
def running_hub(**how: Any) -> Iterator[FakeHub]:
    """A hub for the length of a `with`."""
    hub = FakeHub(**how).start()
    try:
        yield hub
    finally:
        hub.stop()
