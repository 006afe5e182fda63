"""A hub that means ill, or is ill: bounded in memory and time, and the token stays at home."""

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemmad.api.errors import GemmaError, ModelNotFound, PullFailed
from gemmad.sources import hub_client, hub_session
from gemmad.sources.hub import HubSource
from gemmad.sources.hub_client import HubClient
from gemmad.sources.hub_session import require_followed
from gemmad.sources.reference import Reference
from tests.fakes.hub.client import go_online
from tests.fakes.hub.server import FakeHub, running_hub

REPO = "google/gemma-4-nano-it"
MODEL = f"/api/models/{REPO}*"
TOKEN = "hf_canary"
WHERE = f"hf.co/{REPO}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with one repository."""
    go_online(monkeypatch, tmp_path)
    with running_hub() as running:
        running.add(REPO, {"config.json": b"{}", "model.safetensors": b"weights"})
        running.accept(TOKEN)
        yield running


@pytest.fixture
def waits() -> list[float]:
    """The seconds that were waited."""
    return []


@pytest.fixture
def client(hub: FakeHub, waits: list[float]) -> HubClient:
    """The client under test, which does not really wait."""
    return HubClient(hub.url, TOKEN, waits.append)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"kind": "gzip-bomb", "size": 32 << 20}, "compressed answer"),
        ({"kind": "endless-json"}, "longer than"),
        ({"kind": "status", "status": 200, "body": b"[" * (8 << 20)}, "longer than"),
        ({"kind": "status", "status": 200, "body": b"<html>Log in, please"}, "not JSON"),
    ],
    ids=["gzip-bomb", "endless", "too-long", "login-page"],
)
def test_an_answer_without_end_is_cut(
    hub: FakeHub, client: HubClient, fault: dict, text: str
) -> None:
    """In a few megabytes and seconds, and in words."""
    hub.misbehave(path=MODEL, times=None, **fault)
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(PullFailed, match=text):
        client.listing(REPO, None)
    took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert took < 5
    assert peak < 64 << 20  # of the hub in this process, too


def test_an_answer_that_drips_is_cut(
    hub: FakeHub, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte comes in time, the answer does not."""
    monkeypatch.setattr(hub_session, "MAX_ANSWER_S", 0.3)
    hub.misbehave("drip", path=MODEL, seconds=0.05, times=None)
    began = time.monotonic()

    with pytest.raises(PullFailed, match="for one answer"):
        client.listing(REPO, None)
    assert time.monotonic() - began < 3


def test_a_silent_hub_is_given_up(
    hub: FakeHub, client: HubClient, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    """After three tries; the message names the hub and the setting."""
    monkeypatch.setattr(hub_client, "_TIMEOUT_S", 0.2)
    hub.misbehave("stall", path=MODEL, seconds=5, times=None)

    with pytest.raises(PullFailed, match="HF_ENDPOINT"):
        client.listing(REPO, None)
    assert waits == [0.3, 1.0]


@pytest.mark.parametrize("fault", [{"kind": "refuse"}, {"kind": "status", "status": 503}])
def test_trouble_that_passes_is_nobodys_news(hub: FakeHub, client: HubClient, fault: dict) -> None:
    """Asked again, the hub answers."""
    hub.misbehave(path=MODEL, times=2, **fault)

    assert "config.json" in client.listing(REPO, None).files


@pytest.mark.parametrize("header", [{"Retry-After": "7"}, {"RateLimit": '"api";r=0;t=7'}])
def test_a_hub_that_asks_for_patience_gets_it(
    hub: FakeHub, client: HubClient, waits: list[float], header: dict
) -> None:
    """As long as it says."""
    hub.misbehave("status", path=MODEL, status=429, headers=header, times=1)

    assert client.listing(REPO, None).files
    assert waits == [7.0]


def test_a_hub_that_asks_for_much_patience_is_quoted(
    hub: FakeHub, client: HubClient, waits: list[float]
) -> None:
    """The person decides whether to wait an hour."""
    hub.misbehave("status", path=MODEL, status=429, headers={"Retry-After": "3600"}, times=None)

    with pytest.raises(PullFailed, match=r"slow down .*Pull again in 3600 s"):
        client.listing(REPO, None)
    assert waits == []


@pytest.mark.parametrize("location", ["{cdn}/api/models/x/y", "http://10.0.0.1/", "ftp://x/", ""])
def test_what_a_repository_is_no_other_host_says(
    hub: FakeHub, client: HubClient, location: str
) -> None:
    """The redirect is not followed, and nobody sees the token."""
    hub.misbehave("redirect", path=MODEL, location=location.format(cdn=hub.cdn_url), times=None)

    with pytest.raises(GemmaError, match=r"redirects to|could not be asked|cannot be right"):
        client.listing(REPO, None)
    assert not hub.saw("cdn", TOKEN)
    assert [seen for seen in hub.requests if seen.where == "cdn"] == []


def test_a_renamed_repository_is_followed_on_the_same_host(hub: FakeHub, client: HubClient) -> None:
    """A hub redirects old names."""
    hub.rename(REPO, "google/gemma-4-nano-2-it")

    assert "config.json" in client.listing(REPO, None).files


def test_a_redirect_without_end_ends(hub: FakeHub, client: HubClient) -> None:
    """In words."""
    hub.misbehave("redirect-loop", path=MODEL, times=None)

    with pytest.raises(PullFailed, match="could not be asked"):
        client.listing(REPO, None)


def test_a_small_file_may_lie_elsewhere_but_the_token_stays(
    hub: FakeHub, client: HubClient
) -> None:
    """Its hash is known by then; a page that is longer or another is refused."""
    listing = client.listing(REPO, None)
    where = f"{hub.cdn_url}/elsewhere"
    hub.misbehave("redirect", path="config.json", where="hub", location=where, times=None)
    hub.misbehave("status", path="/elsewhere", where="cdn", status=200, body=b"{}", times=1)
    hub.misbehave("status", path="/elsewhere", where="cdn", status=200, body=b"[]", times=1)
    hub.misbehave("status", path="/elsewhere", where="cdn", status=200, body=b"{ }", times=1)

    assert client.read(listing, listing.files["config.json"]) == b"{}"
    for text in ("did not arrive", "longer than 2 bytes"):
        with pytest.raises(PullFailed, match=text):
            client.read(listing, listing.files["config.json"])
    assert not hub.saw("cdn", TOKEN)


@pytest.mark.parametrize(
    ("url", "location", "allowed"),
    [
        ("https://hf.co/api/models/a/b", "https://huggingface.co/api/models/a/b", True),
        ("https://hf.co/api/models/a/b", "https://evil.example/api/models/a/b", False),
        ("https://hf.co/a/b/resolve/c/d", "http://hf.co/a/b/resolve/c/d", False),
        ("https://hf.co/a/b/resolve/c/d", "https://u:p@hf.co/d", False),
        ("https://1.1.1.1/a/b/resolve/c/d", "https://8.8.8.8/d", True),
        ("https://1.1.1.1/a/b/resolve/c/d", "https://169.254.169.254/d", False),
        ("https://1.1.1.1/a/b/resolve/c/d", "https://127.0.0.1/d", False),
        ("https://1.1.1.1/a/b/resolve/c/d", "https://[::1]/d", False),
        ("https://1.1.1.1/a/b/resolve/c/d", "file:///etc/passwd", False),
        ("http://127.0.0.1:8000/api/models/a/b", "http://127.0.0.1:9000/api/models/a/b", False),
        ("http://127.0.0.1:8000/a/b/resolve/c/d", "http://127.0.0.1:9000/d", True),
    ],
)
def test_where_a_redirect_may_lead(url: str, location: str, allowed: bool) -> None:
    """Never off encryption, from the Internet into this network, or to another's word on a name."""
    if allowed:
        require_followed(url, location)
    else:
        with pytest.raises(PullFailed, match="that is not followed"):
            require_followed(url, location)


@pytest.mark.parametrize(
    ("fault", "token", "text"),
    [
        ({"status": 401}, TOKEN, r"takes no such token .*Set HF_TOKEN"),
        ({"status": 401}, None, r"wants a token .*Set HF_TOKEN"),
        ({"status": 403}, TOKEN, r"takes no such token .*may read it"),
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, TOKEN, "whose token HF_TOKEN"),
        ({"status": 401, "headers": {"X-Error-Code": "GatedRepo"}}, None, "and set HF_TOKEN"),
        ({"status": 401, "headers": {"X-Error-Code": "RepoNotFound"}}, None, "Check the spelling"),
        ({"status": 500}, None, "answered 500"),
    ],
)
def test_a_refusal_says_what_to_do(hub: FakeHub, fault: dict, token: str | None, text: str) -> None:
    """The setting, and where the licence is accepted."""
    hub.misbehave("status", path=MODEL, times=None, **fault)

    with pytest.raises((PullFailed, ModelNotFound), match=text) as error:
        HubClient(hub.url, token, lambda _: None).listing(REPO, None)
    assert REPO in str(error.value)
    assert TOKEN not in str(error.value)


def test_offline_nothing_is_asked(
    hub: FakeHub, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_OFFLINE: the answer comes at once and names it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    began = time.monotonic()

    with pytest.raises(PullFailed, match="HF_HUB_OFFLINE is set"):
        HubSource(lambda: client).target(Reference.parse(WHERE))
    assert (hub.requests, time.monotonic() - began < 0.2) == ([], True)


def test_a_mirror_that_tells_names_alone_is_asked_for_the_tree(
    hub: FakeHub, client: HubClient
) -> None:
    """Page by page, and no page is taken from another host."""
    names = b'{"sha":"%s","siblings":[{"rfilename":"config.json"}]}'
    sha = hub.protocol.repositories[REPO].branches["main"]
    body = names % sha.encode()
    hub.misbehave("status", path=f"/api/models/{REPO}", status=200, body=body, times=None)
    hub.protocol.page_size = 1
    assert set(client.listing(REPO, None).files) == {"config.json", "model.safetensors"}

    hub.protocol.hub_netloc = "evil.example"
    with pytest.raises(PullFailed, match="goes on at another host"):
        client.listing(REPO, None)
