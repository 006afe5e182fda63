"""The pure parts of a fetch: what an answer means, who is slow, how long to wait, which proxy."""

import http.client
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmad.api.errors import BadRequest
from gemmad.core import ByteCount
from gemmad.fetch.answers import Asked, Meaning, read_answer
from gemmad.fetch.bandwidth import BURST_S, Bandwidth
from gemmad.fetch.hops import Place
from gemmad.fetch.limits import FetchLimits
from gemmad.fetch.proxies import proxy_for
from gemmad.fetch.trouble import Subject, Transient
from gemmad.fetch.work import Piece, Work, laggard

ASKED = Asked(100, 200, 1000)
SUBJECT = Subject("model.safetensors", "hub.example", "https://hub.example/a/b")


@pytest.mark.parametrize(
    ("status", "headers", "meaning", "length"),
    [
        (206, {"content-range": "bytes 100-199/1000"}, Meaning.RANGE, 100),
        (206, {"content-range": "bytes 100-149/1000", "content-length": "50"}, Meaning.RANGE, 50),
        (206, {"content-range": "bytes 100-199/*"}, Meaning.RANGE, 100),
        (206, {"content-range": "bytes 100-199/1001"}, Meaning.OTHER_FILE, 1001),
        (200, {"content-length": "1000"}, Meaning.WHOLE, 1000),
        (200, {}, Meaning.WHOLE, None),
        (200, {"content-length": "999"}, Meaning.OTHER_FILE, 999),
        (302, {}, Meaning.REDIRECT, None),
        (403, {}, Meaning.DENIED, None),
        (404, {}, Meaning.REFUSED, None),
        (416, {}, Meaning.OTHER_FILE, None),
        (204, {}, Meaning.REFUSED, None),
        (304, {}, Meaning.REFUSED, None),
    ],
)
def test_answers_mean(status: int, headers: dict, meaning: Meaning, length: int | None) -> None:
    """Each answer has one meaning."""
    reading = read_answer(status, headers, ASKED)

    assert (reading.meaning, reading.length) == (meaning, length)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-range": "bytes 99-199/1000"},
        {"content-range": "bytes 100-200/1000"},
        {"content-range": "bytes 100-99/1000"},
        {"content-range": "bytes 100-199/1000", "content-length": "101"},
        {"content-range": "bytes -5-199/1000"},
        {"content-range": "bytes 100-199/1000", "content-encoding": "gzip"},
        {"content-range": "bytes 1" + "0" * 30 + "-199/1000"},
        {"content-type": "multipart/byteranges; boundary=x"},
    ],
)
def test_ranges_that_are_not_what_was_asked_for_are_of_no_use(headers: dict) -> None:
    """Nothing of such an answer is written."""
    with pytest.raises(Transient):
        read_answer(206, headers, ASKED)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0", 0), ("", None), ("soon", None), ("-1", None), ("٣", None),
     ("Tue, 01 Jan 2030 00:01:00 GMT", 60), ("Mon, 31 Dec 2029 00:00:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_by_the_servers_own_clock(
    text: str, seconds: float | None
) -> None:
    """What is not understood asks for nothing."""
    headers = {"retry-after": text, "date": "Tue, 01 Jan 2030 00:00:00 GMT"}

    with pytest.raises(Transient) as trouble:
        read_answer(429, headers, ASKED)
    assert trouble.value.wait_s == seconds


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["content-range", "content-length", "retry-after", "date", "etag"]),
        st.text(max_size=40),
    ),
)
def test_any_answer_is_understood_or_tried_again(status: int, headers: dict) -> None:
    """No header makes the reader fail in another way."""
    try:
        reading = read_answer(status, headers, ASKED)
    except Transient:
        return

    assert reading.meaning is not Meaning.RANGE or 0 < (reading.length or 0) <= 100


def flying(chunk: int, done: int, since: float) -> Piece:
    """A piece of 1,000 bytes in flight."""
    return Piece(chunk, chunk * 1000, 1000, done=done, since=since)


def test_laggard_is_old_slow_and_far_from_done() -> None:
    """A young piece, one near its end, and one that is slow like all are left alone."""
    slow, young, near, fair = (
        flying(0, 10, 0),
        flying(1, 0, 9),
        flying(2, 990, 0),
        flying(3, 500, 0),
    )

    assert laggard([fair, young, near, slow], usual=100, now=10, slow_s=5) is slow
    assert laggard([fair, young, near], usual=100, now=10, slow_s=5) is None
    assert laggard([slow], usual=5, now=10, slow_s=5) is None
    slow.evictions = 2
    assert laggard([slow], usual=100, now=10, slow_s=5) is None


@given(st.lists(st.integers(1, 50_000), min_size=5, max_size=30))
def test_bandwidth_holds_in_the_mean(reads: list[int]) -> None:
    """Whoever waits as told gets no more than the rate and one burst."""
    bandwidth, now, rate = Bandwidth(ByteCount(100_000)), 1000.0, 100_000
    for count in reads:
        now += bandwidth.spend(count, now)

    assert sum(reads) <= rate * (now - 1000.0 + BURST_S) + 1
    bandwidth.set_rate(None)
    assert bandwidth.spend(10**9, now) == 0


def test_outage_is_given_up_after_the_attempts_of_few_pieces_not_of_all() -> None:
    """Failures count over all pieces as long as no byte comes."""
    limits = FetchLimits(connections=2, attempts=4, backoff_s=0.0001, backoff_most_s=0.0001)
    work = Work([Piece(n, n * 10, 10, n) for n in range(1000)], SUBJECT, limits)
    tries = 0
    while (piece := work.take(lambda: None)) is not None:
        work.failed(piece, Transient("the connection broke"))
        tries += 1

    assert tries <= limits.attempts * limits.connections
    assert "model.safetensors could not be fetched from hub.example" in str(work.error)


def test_failing_piece_is_not_asked_for_before_its_time() -> None:
    """Back-off grows, and Retry-After holds for all pieces."""
    work = Work([Piece(n, n * 10, 10, n) for n in range(3)], SUBJECT, FetchLimits(backoff_s=5))
    piece = work.take(lambda: None)
    assert piece is not None
    first = work.failed(piece, Transient("HTTP 429", wait_s=60))
    taken: list[Piece | None] = []
    thread = threading.Thread(target=lambda: taken.append(work.take(lambda: None)))
    thread.start()
    thread.join(0.1)

    assert first - piece.since >= 60
    assert taken == []
    work.stop()
    thread.join()
    assert taken == [None]


def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy, https_proxy and no_proxy hold, with credentials; other kinds are refused."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    place = Place.parse("https://hub.example/x")
    assert proxy_for(place) is None
    monkeypatch.setenv("https_proxy", "http://me:p%40ss@proxy.example:3128")
    proxy = proxy_for(place)
    assert proxy is not None
    assert (proxy.host, proxy.port) == ("proxy.example", 3128)
    assert proxy.headers == {"Proxy-Authorization": "Basic bWU6cEBzcw=="}
    assert "bWU6cEBzcw" not in repr(proxy)
    monkeypatch.setenv("no_proxy", "hub.example")
    assert proxy_for(place) is None
    monkeypatch.setenv("https_proxy", "socks5://proxy.example")
    monkeypatch.delenv("no_proxy")
    with pytest.raises(BadRequest, match="socks5"):
        proxy_for(place)


def test_place_names_file_host_and_page() -> None:
    """What errors speak of."""
    place = Place.parse("https://Hub.example:8443/a/b/resolve/main/x%20y.gguf?download=true")

    assert (place.host, place.port, place.file_name) == ("hub.example", 8443, "x y.gguf")
    assert place.page == "https://hub.example:8443/a/b"
    assert http.client.HTTPSConnection(place.netloc).port == 8443
