"""A token stays with its host, and no redirect leads into this network or out of encryption."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmad.api.errors import PullFailed
from gemmad.fetch import connection
from gemmad.fetch.addresses import is_public, looks_private, resolve
from gemmad.fetch.hops import BadPlace, Place, follow
from gemmad.fetch.route import Route
from tests.fakes.hub.fetching import NAME, QUICK, REPO, Pull
from tests.fakes.hub.server import FakeHub, running_hub

DATA = b"0123456789abcdef" * 4096
CANARY = "hf_canaryCanaryCanary"
LITERALS = (
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1"),
    *("017700000001", "127.000.000.001", "0x7f.0x0.0x0.0x1", "127.255.255.254", "0", "0.0.0.0"),
    *("0x0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]"),
    *("[::127.0.0.1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[64:ff9b::7f00:1]"),
    *("[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2002:a00:1::1]", "[2002:c0a8:101::]"),
    *("[fe80::1]", "[fe80::1%25lo]", "[fc00::1]", "[fd12:3456::1]", "[ff02::1]", "[2001:db8::1]"),
    *("10.0.0.1", "10.1", "167772161", "0xa000001", "012.0.0.1", "172.16.0.1", "172.31.255.255"),
    *("2886729729", "192.168.0.1", "192.168.1", "3232235521", "0xc0a80001", "0300.0250.0.1"),
    *("169.254.169.254", "169.254.43518", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376"),
    *("[::ffff:169.254.169.254]", "[::ffff:10.0.0.1]", "[::ffff:192.168.0.1]", "100.64.0.1"),
    *("100.127.255.254", "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("192.0.2.1", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1"),
)
NAMES = ("localhost", "LOCALHOST", "localhost.", "a.localhost", "metadata.internal", "nas.local")
PUBLIC = "203.0.114.7"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with one file."""
    with running_hub() as hub:
        hub.add(REPO, {NAME: DATA, "config.json": DATA[:100]})
        yield hub


@pytest.fixture
def public_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The hub's own host counts as one of the Internet; dialling anything else is seen as such."""
    monkeypatch.setattr(Route, "private", property(lambda _: False))
    hub_port = int(hub.url.rsplit(":", 1)[1])

    def resolved(host: str, port: int) -> list[object]:
        found = resolve(host, port)
        if port != hub_port:
            return found
        own = {"public": True, "family": found[0].family, "sockaddr": found[0].sockaddr}
        return [SimpleNamespace(**own)]

    monkeypatch.setattr(connection, "resolve", resolved)
    return hub


def contents(root: Path) -> list[bytes]:
    """Every file below `root`."""
    return [path.read_bytes() for path in root.rglob("*") if path.is_file()]


def test_there_are_sixty_spellings() -> None:
    """The list below is as long as was promised."""
    assert len({*LITERALS, *NAMES}) >= 60


@pytest.mark.parametrize("host", [*LITERALS, *NAMES])
async def test_redirect_into_this_network_is_refused_and_not_dialled(
    public_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Whatever its spelling, an address that is not the Internet's is never connected to."""
    dialled, connect = [], socket.socket.connect

    def trap(self: socket.socket, address: tuple[object, ...]) -> None:
        dialled.append(address[1])
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", trap)
    known = socket.getaddrinfo

    def names(name: str, *args: object, **more: object) -> list[object]:
        private = name.endswith((".localhost", ".internal", ".local"))
        return known("127.0.0.1" if private else name, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", names)
    location = f"http://{host}:81/latest/meta-data"
    public_hub.misbehave("redirect", where="hub", location=location.encode().decode("latin-1"))
    pull = Pull(public_hub, tmp_path, DATA, limits=replace(QUICK, attempts=1))

    with pytest.raises(PullFailed):
        await pull.run()
    assert set(dialled) <= {int(public_hub.url.rsplit(":", 1)[1])}


async def test_public_host_does_not_lead_to_a_cdn_on_loopback(
    public_hub: FakeHub, tmp_path: Path
) -> None:
    """The message says what was refused, and the CDN hears nothing."""
    with pytest.raises(PullFailed, match="an address of this network; that is not followed"):
        await Pull(public_hub, tmp_path, DATA).run()
    assert public_hub.dials["cdn"] == 0


async def test_name_that_has_one_private_address_among_others_is_refused(
    public_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked up is what is dialled: a name server cannot answer twice differently."""
    answers = iter(([PUBLIC, "127.0.0.1"], ["127.0.0.1"]))
    known = socket.getaddrinfo

    def flipping(host: str, port: int, **more: object) -> list[object]:
        if host != "flip.example":
            return known(host, port, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in next(answers)]

    monkeypatch.setattr(socket, "getaddrinfo", flipping)
    public_hub.misbehave("redirect", where="hub", location="http://flip.example:81/x")

    with pytest.raises(PullFailed, match=r"flip\.example:81, an address of this network"):
        await Pull(public_hub, tmp_path, DATA).run()


async def test_token_is_seen_by_its_own_host_alone(hub: FakeHub, tmp_path: Path) -> None:
    """The CDN gets no part of any request with the token, nor does a partial or its journal."""
    hub.accept(CANARY)
    hub.add(REPO, {NAME: DATA, "config.json": DATA[:100]}, gated=True)
    hub.misbehave("reset", where="cdn", at=100)
    await Pull(hub, tmp_path, DATA, token=CANARY).run()
    await Pull(hub, tmp_path, DATA[:100], name="config.json", token=CANARY).run()

    assert hub.tokens_seen("hub") == {CANARY}
    assert hub.bytes_sent("cdn") >= len(DATA)
    assert not hub.saw("cdn", CANARY)
    assert not any(CANARY.encode() in data for data in contents(tmp_path))


async def test_token_does_not_come_back_after_another_host(hub: FakeHub, tmp_path: Path) -> None:
    """A foreign host may not send the token's owner on an errand at home."""
    back = f"{hub.url}/{REPO}/resolve/main/other.json"
    hub.misbehave("redirect", where="cdn", location=back)
    hub.add(REPO, {NAME: DATA, "other.json": DATA})
    hub.protocol.resolve_cache = False
    await Pull(hub, tmp_path, DATA, token=CANARY).run()

    assert [s.token for s in hub.requests if s.path.endswith("other.json")] == [None]


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://x/y", "http://user@x/y", "http://x:y@z/", "gopher:x",
     "http://x y/z", "http://[::1/x", "http://x:99999/", "http://é.example/"],
)  # fmt: skip
async def test_odd_redirects_are_refused(hub: FakeHub, tmp_path: Path, location: str) -> None:
    """Only plain http(s) addresses are followed."""
    hub.misbehave("redirect", where="hub", location=location)

    with pytest.raises(PullFailed, match="that is not followed"):
        await Pull(hub, tmp_path, DATA).run()


async def test_proxy_of_the_environment_is_asked_for_names_it_may_know(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy gets the whole URL; a redirect to this network is refused by its text."""
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.delenv("no_proxy", raising=False)
    pull = Pull(hub, tmp_path, DATA[:100], name="config.json")
    pull.remote = replace(pull.remote, url=f"http://files.example/{REPO}/resolve/main/config.json")
    await pull.run()
    other = Pull(hub, tmp_path, DATA)
    other.remote = replace(pull.remote, url=f"http://files.example/{REPO}/resolve/main/{NAME}")

    assert pull.right
    assert {s.headers["host"] for s in hub.requests} == {"files.example"}
    with pytest.raises(PullFailed, match="an address of this network"):
        await other.run()
    assert hub.dials["cdn"] == 0


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
async def test_encrypted_hub_must_have_a_trusted_certificate(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's certificate ends the pull; a known one lets it through, by HTTPS."""
    certificate, key = make_certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    hub.encrypt(server)
    pull = Pull(hub, tmp_path, DATA, token=CANARY)
    assert pull.remote.url.startswith("https://")

    with pytest.raises(PullFailed, match="its certificate is refused"):
        await pull.run()
    assert not hub.requests
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(connection, "tls_context", lambda: trusting)
    await pull.run()
    assert pull.right
    assert hub.tokens_seen("hub") == {CANARY}
    assert not hub.saw("cdn", CANARY)  # plain http, and fine: it is on loopback as the hub is


def make_certificate(root: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody knows, and its key."""
    certificate, key = root / "certificate.pem", root / "key.pem"
    names = ["-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def test_https_does_not_lead_to_http() -> None:
    """Encryption is not dropped on the way; a relative redirect keeps all."""
    place = Place.parse("https://hub.example/a/b/resolve/main/f?x=1")

    with pytest.raises(BadPlace, match="without encryption"):
        follow(place, "http://cdn.example/f", lambda _: False)
    assert follow(place, "http://localhost/f", lambda _: True).scheme == "http"
    assert follow(place, "/c?d", lambda _: False).url == "https://hub.example/c?d"
    assert follow(place, "//cdn.example/c", lambda _: False).url == "https://cdn.example/c"


@given(st.text(max_size=60))
def test_any_location_is_a_place_or_refused(text: str) -> None:
    """No text makes anything but a plain ASCII request line."""
    try:
        place = follow(Place.parse("http://hub.example/x"), text, lambda _: False)
    except BadPlace:
        return

    assert place.url.isascii()
    assert not any(c in place.url for c in "\r\n \t\0")


@pytest.mark.parametrize("text", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(text: str) -> None:
    """The rule refuses no real server."""
    assert is_public(text)
    assert not looks_private(text)


@pytest.mark.parametrize("host", ["huggingface.co", "cdn-lfs.hf.co", "8.8.8.8", "134744072"])
def test_names_of_the_internet_do_not_look_private(host: str) -> None:
    """Behind a proxy the text alone decides."""
    assert not looks_private(host)
    assert all(looks_private(name) for name in (*NAMES, "0x7f.1", "2130706433", "::1", "router"))
