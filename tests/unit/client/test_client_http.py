"""The client's own HTTP reads a response as `http.client` does, and refuses what is none."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmacli.http import MAX_HEADERS, MAX_LINE_BYTES, NotHttp, Response, send

OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def answered(raw: bytes) -> Iterator[socket.socket]:
    """A connection whose other side has said `raw` and hung up."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(raw)
        yield ours


def chunked(pieces: list[bytes]) -> bytes:
    body = b"".join(b"%x;note=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    return OK + b"Transfer-Encoding: Chunked\r\n\r\n" + body + b"0\r\nTrailer: t\r\n\r\n"


def lines_of(response: Response | http.client.HTTPResponse) -> list[bytes]:
    return list(iter(response.readline, b""))


PIECES = st.lists(st.text("ab\n", max_size=9).map(str.encode), max_size=8)


@given(PIECES)
def test_chunked_lines_are_those_of_the_standard_library(pieces: list[bytes]) -> None:
    """Lines begin and end anywhere in chunks."""
    with answered(chunked(pieces)) as sock, http.client.HTTPResponse(sock) as standard:
        standard.begin()
        expected = lines_of(standard)
    with answered(chunked(pieces)) as sock:
        response = Response(sock, "GET")
        found = lines_of(response)
        response.close()

    assert expected == found


@given(PIECES, st.integers(0, 20))
def test_reading_up_to_a_limit_loses_nothing(pieces: list[bytes], limit: int) -> None:
    """What one call leaves the next one has."""
    with answered(chunked(pieces)) as sock:
        response = Response(sock, "GET")
        parts = [response.read(limit), response.readline(), response.read()]
        response.close()

    assert len(parts[0]) <= limit
    assert b"".join(pieces) == b"".join(parts)


@pytest.mark.parametrize(
    ("method", "raw", "expected"),
    [
        ("GET", OK + b"Content-Length: 3\r\n\r\nabcdef", b"abc"),
        ("GET", OK + b"\r\nuntil it hangs up", b"until it hangs up"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length:1\r\n\r\nx", b"x"),
        ("HEAD", OK + b"Content-Length: 3\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_the_body_ends_where_its_head_says(method: str, raw: bytes, expected: bytes) -> None:
    """By length, by chunks, with the connection, or before it has begun."""
    with answered(raw) as sock:
        response = Response(sock, method)
        body = response.read()
        response.close()

    assert expected == body


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"SSH-2.0-whatever\r\n", NotHttp),
        (b"HTTP/1.1 twohundred OK\r\n\r\n", NotHttp),
        (OK + b"Content-Length: -1\r\n\r\n", NotHttp),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n", NotHttp),
        (OK + b"X: " + b"y" * MAX_LINE_BYTES + b"\r\n\r\n", NotHttp),
        (OK + b"".join(b"h%d: 1\r\n" % n for n in range(MAX_HEADERS + 1)) + b"\r\n", NotHttp),
        (b"", ConnectionError),
        (b"HTTP/1.1 200", ConnectionError),
        (OK + b"Content-Length: 3\r\n\r\nab", ConnectionError),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nab", ConnectionError),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", ConnectionError),
    ],
)
def test_what_is_no_whole_response_is_an_error(raw: bytes, error: type[Exception]) -> None:
    """A stranger and a hang-up are told apart, and neither is an empty answer."""
    with answered(raw) as sock, pytest.raises(error):
        Response(sock, "GET").read()


def test_a_request_without_a_body_survives_a_daemon_that_was_faster() -> None:
    """Nothing is written after the head, so a peer that has answered and left is no error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, "GET", "/", {"Host": "localhost"}, ())

        assert theirs.recv(100) == b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
