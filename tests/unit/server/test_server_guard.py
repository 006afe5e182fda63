"""The guard: a table of who may come in."""

import itertools

import pytest
from multidict import CIMultiDict

from gemmad.server.guard import Incoming, judge

PORT = 11435
JSON = "application/json"


def status(method="POST", host=f"127.0.0.1:{PORT}", port=PORT, body=True, **headers):
    hosts = [host] if isinstance(host, str) else list(host)
    fields = {"Content-Type": JSON} | {k.replace("_", "-"): v for k, v in headers.items()}
    present = CIMultiDict({k: v for k, v in fields.items() if v is not None})
    refusal = judge(Incoming(method, port, hosts, present, body))
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    "host", [f"127.0.0.1:{PORT}", f"[::1]:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}"]
)
def test_our_own_addresses_come_in(host):
    """With our port."""
    assert status(host=host) == 200


@pytest.mark.parametrize("host", [
    "evil.com", f"evil.com:{PORT}", "", f"localhost.:{PORT}", f"0.0.0.0:{PORT}", f"x.local:{PORT}",
    f"x.localhost:{PORT}", f"192.168.1.2:{PORT}", "127.0.0.1", "127.0.0.1:1", "localhost:80",
    f"127.0.0.1:{PORT}@evil.com", f"127.1:{PORT}", f"2130706433:{PORT}",
    f"[::ffff:127.0.0.1]:{PORT}",
])  # fmt: skip
def test_every_other_host_is_misdirected(host):
    """A rebound name is not our address, whatever it resolves to."""
    assert status(host=host) == 421


@pytest.mark.parametrize("hosts", [[], [f"127.0.0.1:{PORT}", "evil.com"]])
def test_no_host_or_two_are_misdirected(hosts):
    """Exactly one."""
    assert status(host=hosts) == 421


def test_the_unix_socket_needs_no_host():
    """Its file permission is the proof."""
    assert status(host="anything", port=None) == 200


ORIGINS = [
    None,
    "https://evil.com",
    "http://localhost:3000",
    "null",
    "file://",
    f"http://127.0.0.1:{PORT}",
    "",
]
SITES = [None, "none", "same-origin", "same-site", "cross-site"]
MODES = [None, "cors", "no-cors", "navigate"]
KINDS = [
    JSON,
    f"{JSON}; charset=utf-8",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    None,
]


def test_the_whole_table_of_web_callers():
    """In only without Origin, from no other site, as JSON, not as a navigation."""
    count = 0
    for port, method, origin, site, mode, kind in itertools.product(
        [PORT, None], ["GET", "POST", "DELETE", "OPTIONS"], ORIGINS, SITES, MODES, KINDS
    ):
        count += 1
        web = origin is not None or site in ("same-site", "cross-site") or mode == "navigate"
        has_body = method in ("POST", "DELETE")
        simple = has_body and (kind is None or not kind.startswith(JSON))
        expected = 403 if web else 415 if simple else 200

        found = status(
            method, port=port, body=has_body, Origin=origin, Sec_Fetch_Site=site,
            Sec_Fetch_Mode=mode, Content_Type=kind,
        )  # fmt: skip
        assert found == expected, (port, method, origin, site, mode, kind)
    assert count > 2000


def test_the_host_comes_before_everything_else():
    """A rebound page learns nothing about origins."""
    assert status(host="evil.com", Origin="https://evil.com", Content_Type="text/plain") == 421


@pytest.mark.parametrize(("header", "value", "expected"), [
    ("Content_Encoding", "gzip", 415), ("Content_Encoding", "identity", 200),
    ("Upgrade", "websocket", 400),
])  # fmt: skip
def test_encoded_bodies_and_upgrades_are_refused(header, value, expected):
    """No bombs, no WebSocket."""
    assert status(**{header: value}) == expected


def test_a_refusal_says_what_and_how():
    """The origin is named, and long ones are cut."""
    headers = CIMultiDict({"Origin": "http://" + "x" * 5000})
    refusal = judge(Incoming("GET", None, [], headers, False))

    assert "http://xxx" in refusal.error.message
    assert len(str(refusal.error)) < 500
    assert refusal.error.fix


@pytest.mark.parametrize(("path", "kind", "expected"), [
    ("/api/blobs/sha256:00", "application/octet-stream", 200), ("/api/blobs/sha256:00", None, 200),
    ("/api/blobs/sha256:00", JSON, 200), ("/api/blobs/sha256:00", "text/plain", 415),
    ("/api/blobs/sha256:00", "multipart/form-data", 415),
    ("/api/create", "application/octet-stream", 415), ("/api/blobsx", None, 415),
])  # fmt: skip
def test_only_a_blob_may_be_any_bytes(path, kind, expected):
    """Not what a web form can send; and a page's origin is refused there too."""
    headers = CIMultiDict({"Content-Type": kind} if kind else {})
    refusal = judge(Incoming("POST", None, [], headers, True, path))
    assert (refusal.status if refusal else 200) == expected
    headers["Origin"] = "https://evil.com"
    assert judge(Incoming("POST", None, [], headers, True, path)).status == 403
