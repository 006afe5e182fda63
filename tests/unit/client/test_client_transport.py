"""Requests reach the daemon by socket or TCP, and what goes wrong is said once, clearly."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gemmacli.client import DaemonClient
from gemmacli.transport import Endpoint, NotOurs, NotRunning, endpoint, error_from_body
from gemmad.api.errors import (
    DaemonUnreachable,
    GemmaError,
    ModelNotFound,
    PromptTooLong,
    RunnerCrashed,
)
from gemmad.api.paths import TcpAddress
from tests.fakes.fake_daemon import FakeDaemon

TCP = TcpAddress("127.0.0.1", 11435)


@contextmanager
def listener(path: Path, reply: bytes) -> Iterator[None]:
    """Something that answers one connection with `reply` and hangs up."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def client_at(path: Path) -> DaemonClient:
    return DaemonClient(Endpoint(path, TCP))


@pytest.mark.parametrize(
    ("env", "where"),
    [
        ({"GEMMA_SOCKET": "/run/s"}, "/run/s"),
        ({"GEMMA_SOCKET": "/run/s", "GEMMA_HOST": "10.0.0.1:9"}, "/run/s"),
        ({"GEMMA_HOST": "10.0.0.1:9"}, "http://10.0.0.1:9"),
        ({"GEMMA_HOST": "0.0.0.0"}, "http://127.0.0.1:11435"),
        ({"GEMMA_HOME": "/home/g"}, "/home/g/run/gemmad.sock"),
    ],
)
def test_endpoint_follows_the_environment(env: dict[str, str], where: str) -> None:
    """The socket is the default, a host asked for is dialled, a socket asked for wins."""
    assert str(endpoint(env)) == where


def test_a_remote_host_is_not_local() -> None:
    """No daemon is started here for a daemon elsewhere."""
    assert not endpoint({"GEMMA_HOST": "10.0.0.1"}).is_local
    assert endpoint({"GEMMA_HOST": "localhost"}).is_local


def test_nothing_listening_is_not_running(tmp_path: Path) -> None:
    """A missing socket file and one that nobody serves are the same."""
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stale))

    for path in (tmp_path / "none", stale):
        with pytest.raises(NotRunning, match="gemma serve"):
            client_at(path).version()


def test_a_stranger_on_the_socket_is_named(tmp_path: Path) -> None:
    """What does not speak HTTP is no daemon."""
    with listener(tmp_path / "s", b"SSH-2.0-whatever\r\n"), pytest.raises(NotOurs):
        client_at(tmp_path / "s").version()


def test_a_daemon_that_dies_while_answering_is_said(tmp_path: Path) -> None:
    """A connection that ends early is not an empty answer."""
    with (
        listener(tmp_path / "s", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        pytest.raises(DaemonUnreachable, match="went away"),
    ):
        client_at(tmp_path / "s").models()


def test_a_stream_cut_off_is_an_error(daemon: FakeDaemon) -> None:
    """Words that came are kept, and the cut is not taken for the end."""
    records = client_at(daemon.path).generate({"model": "nano", "prompt": "cut it off"})

    assert [next(records)["response"], next(records)["response"]] == ["echo: ", "cut "]
    with pytest.raises(DaemonUnreachable, match="went away"):
        next(records)


def test_an_error_within_a_stream_is_raised(daemon: FakeDaemon) -> None:
    """The last line's code decides the class."""
    with pytest.raises(RunnerCrashed, match="The runner died"):
        list(client_at(daemon.path).generate({"model": "nano", "prompt": "fail at once"}))


def test_closing_a_stream_hangs_up(daemon: FakeDaemon) -> None:
    """The daemon sees the client leave, so it can stop the work."""
    records = client_at(daemon.path).generate({"model": "nano", "prompt": "forever"})
    next(records)
    records.close()

    assert daemon.state.left.wait(5)


def test_unknown_model_is_model_not_found(daemon: FakeDaemon) -> None:
    """A refusal's body becomes the error that the daemon meant."""
    with pytest.raises(ModelNotFound, match="gemma pull other"):
        client_at(daemon.path).show("other")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error": "too long", "code": "prompt_too_long"}', PromptTooLong),
        (b'{"error": "odd", "code": "of the future"}', GemmaError),
        (b'{"error": "old"}', GemmaError),
        (b"<html>", NotOurs),
        (b"[]", NotOurs),
    ],
)
def test_error_class_follows_the_code(body: bytes, kind: type[GemmaError]) -> None:
    """Codes of other versions and bodies of other servers still end in one sentence."""
    assert type(error_from_body(500, body)) is kind
