"""One real daemon with the built-in pair for all tests that talk with nano."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.daemon_process import NanoDaemon

JSON = {"Content-Type": "application/json"}


class Nano(NanoDaemon):
    """The daemon, and requests to it over its port."""

    @contextmanager
    def open(
        self, method: str, path: str, body: object = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The response, still being received; leaving the block closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=100)
        try:
            connection.request(method, path, body and json.dumps(body), JSON if body else {})
            yield connection.getresponse()
        finally:
            connection.close()

    def records(self, path: str, body: object = None) -> list[dict]:
        """All records of an answer; the body's own fields when it is no stream."""
        with self.open("POST" if body else "GET", path, body) as response:
            return [json.loads(line) for line in response.read().splitlines()]

    @property
    def running(self) -> dict | None:
        """The `/api/ps` entry of nano while it is loaded."""
        (answer,) = self.records("/api/ps")
        return next(iter(answer["models"]), None)


@pytest.fixture(scope="session")
def nano_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nano]:
    """A home directory, and the daemon on it once it is started."""
    daemon = Nano(tmp_path_factory.mktemp("nano") / "home")
    yield daemon
    daemon.close()


@pytest.fixture
def nano(nano_home: Nano) -> Nano:
    """The daemon runs, also after a test that killed it, and its store holds nano."""
    if nano_home.process is None:
        nano_home.start()
    (stored,) = nano_home.records("/api/tags")
    if "nano:latest" not in [model["name"] for model in stored["models"]]:
        assert nano_home.records("/api/pull", {"model": "nano"})[-1] == {"status": "success"}
    return nano_home
