"""The fake hub is believed by the real client, serves ranges, and breaks as it is told to."""

import hashlib
import http.client
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.fakes.hub.client import go_online
from tests.fakes.hub.server import FakeHub, running_hub

REPO = "google/gemma-4-nano-it"
WEIGHTS = random.Random(4).randbytes(300_000)
CONFIG = b'{"model_type": "gemma4"}'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with one repository, and a client that may dial it."""
    go_online(monkeypatch, tmp_path)
    with running_hub() as hub:
        hub.add(REPO, {"config.json": CONFIG, "model.safetensors": WEIGHTS, "a/b.txt": b"deep"})
        yield hub


def get(url: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """The answer to one GET, redirects not followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def cdn_link(hub: FakeHub) -> str:
    """Where the hub redirects the weights to."""
    response, _ = get(hub.file_url(REPO, "model.safetensors"))
    assert response.status == 302
    return response.headers["Location"]


def test_model_info_of_the_real_client_has_hashes_of_lfs_files_alone(hub: FakeHub) -> None:
    """sha256 is known for weights, git's blob id for the rest, as on the real hub."""
    info = HfApi(endpoint=hub.url, token=False).model_info(REPO, files_metadata=True)

    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert len(info.sha or "") == 40
    assert files["model.safetensors"].lfs["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert files["config.json"].lfs is None
    blob = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    assert files["config.json"].blob_id == blob


def test_tree_of_the_real_client_is_paged(hub: FakeHub) -> None:
    """Every entry arrives when a page holds only two."""
    hub.protocol.page_size = 2
    entries = HfApi(endpoint=hub.url, token=False).list_repo_tree(REPO, recursive=True)

    assert [e.path for e in entries] == ["a", "a/b.txt", "config.json", "model.safetensors"]


def test_search_of_the_real_client_finds_by_words(hub: FakeHub) -> None:
    """Every word of a search must stand in the name."""
    hub.add("other/gemma-4-nano-it-assistant", {"config.json": b"{}"})
    api = HfApi(endpoint=hub.url, token=False)

    assert [m.id for m in api.list_models(search="gemma nano")] == [*hub.protocol.repositories]
    assert [m.id for m in api.list_models(search="gemma", author="google")] == [REPO]


def test_file_metadata_of_the_real_client_is_the_linked_files(hub: FakeHub) -> None:
    """Size, ETag, commit and the CDN's address come from one HEAD without a body."""
    url = hf_hub_url(REPO, "model.safetensors", endpoint=hub.url)
    metadata = get_hf_file_metadata(url, token=False)

    assert url == hub.file_url(REPO, "model.safetensors")
    assert (metadata.size, metadata.etag) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert metadata.location.startswith(hub.cdn_url)
    assert metadata.commit_hash == hub.protocol.repositories[REPO].branches["main"]


@pytest.mark.parametrize(
    ("name", "data"), [("model.safetensors", WEIGHTS), ("config.json", CONFIG)]
)
def test_real_client_downloads_and_shows_its_token_to_the_hub_alone(
    hub: FakeHub, name: str, data: bytes
) -> None:
    """Both ways to bytes work: by the CDN, and by the relative redirect for small files."""
    path = hf_hub_download(REPO, name, endpoint=hub.url, token="hf_good")

    assert Path(path).read_bytes() == data
    assert hub.tokens_seen("hub") == {"hf_good"}
    assert hub.tokens_seen("cdn") == set()


def test_errors_of_the_real_client_are_told_apart(hub: FakeHub) -> None:
    """Missing repository, revision and file, and a gated one, each raise their own error."""
    hub.add("google/gated", {"config.json": CONFIG}, gated=True)
    api = HfApi(endpoint=hub.url, token=False)

    with pytest.raises(RepositoryNotFoundError):
        api.model_info("google/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v9")
    with pytest.raises(EntryNotFoundError):
        get_hf_file_metadata(hub.file_url(REPO, "none.json"), token=False)
    for token in (False, "hf_other"):
        with pytest.raises(GatedRepoError):
            get_hf_file_metadata(hub.file_url("google/gated", "config.json"), token=token)
    assert get_hf_file_metadata(hub.file_url("google/gated", "config.json"), token="hf_good").size
    assert api.model_info("google/gated").gated == "manual"


def test_renamed_repository_redirects_the_real_client(hub: FakeHub) -> None:
    """The old name still answers, by a redirect on the same host."""
    hub.rename(REPO, "google/gemma-4-small-it")

    assert HfApi(endpoint=hub.url, token=False).model_info(REPO).id == "google/gemma-4-small-it"


def test_status_fault_reaches_the_real_client(hub: FakeHub) -> None:
    """429 with its Retry-After is what the client is told."""
    fault = hub.misbehave("status", status=429, headers={"Retry-After": "7"}, path="/api/models/*")

    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=hub.url, token=False).model_info(REPO)
    assert (error.value.response.status_code, fault.happened) == (429, 1)
    assert error.value.response.headers["Retry-After"] == "7"


@pytest.mark.parametrize("on_disk", [False, True])
def test_cdn_serves_the_range_that_was_asked_for(
    hub: FakeHub, tmp_path: Path, on_disk: bool
) -> None:
    """206, Content-Range and ETag are right, from memory and from a file; the log counts bytes."""
    if on_disk:
        (tmp_path / "weights").write_bytes(WEIGHTS)
        hub.add(REPO, {"model.safetensors": tmp_path / "weights"})
    response, body = get(cdn_link(hub), Range="bytes=1000-250999")

    assert (response.status, body) == (206, WEIGHTS[1000:251_000])
    assert response.headers["Content-Range"] == "bytes 1000-250999/300000"
    assert response.headers["ETag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert (hub.bytes_sent("cdn"), hub.sent_for("*.safetensors")) == (250_000, 250_000)


def test_expired_link_answers_403_and_a_new_one_works(hub: FakeHub) -> None:
    """Links are signed and end; the hub gives new ones."""
    link = cdn_link(hub)
    hub.expire_links()

    assert get(link)[0].status == 403
    assert get(cdn_link(hub))[0].status == 200


@pytest.mark.parametrize(
    ("kind", "status", "right"),
    [("flip", 206, 100), ("swap", 206, 0), ("other-file", 206, 0), ("ignore-range", 200, 0)],
)
def test_faults_of_bytes_are_seen_in_the_body_alone(
    hub: FakeHub, kind: str, status: int, right: int
) -> None:
    """The length is right, the bytes are not: only a hash can tell."""
    hub.misbehave(kind, where="cdn", path="*.safetensors", at=1100)
    response, body = get(cdn_link(hub), Range="bytes=1000-1999")

    assert response.status == status
    assert len(body) == int(response.headers["Content-Length"])
    assert body[:1000] != WEIGHTS[1000:2000]
    assert body[:right] == WEIGHTS[1000 : 1000 + right]


@pytest.mark.parametrize("kind", ["reset", "truncate", "stall", "refuse", "drip"])
def test_faults_of_the_connection_break_it(hub: FakeHub, kind: str) -> None:
    """The client gets fewer bytes than announced, or none at all, and an error."""
    link = cdn_link(hub)
    hub.misbehave(kind, where="cdn", at=1000, seconds=0.05 if kind != "drip" else 60)
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(parts.netloc, timeout=0.3)
    connection.request("GET", f"{parts.path}?{parts.query}")

    with pytest.raises((ConnectionError, http.client.HTTPException, TimeoutError)):
        connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize("kind", ["gzip-bomb", "endless-json", "headers"])
def test_faults_of_size_can_be_started_and_stopped(hub: FakeHub, kind: str) -> None:
    """A body without end ends with the hub; nothing here waits for it."""
    hub.misbehave(kind, path="/api/models*", size=1 << 20)
    with socket.create_connection(urlsplit(hub.url).netloc.split(":"), timeout=5) as connection:
        connection.sendall(f"GET /api/models HTTP/1.1\r\nHost: {hub.url[7:]}\r\n\r\n".encode())

        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_redirect_faults_point_where_they_are_told(hub: FakeHub) -> None:
    """A loop changes its URL each time, so that only a hop limit ends it."""
    hub.misbehave("redirect-loop", path="config.json", times=2)
    hub.misbehave("redirect", path="config.json", location="http://10.0.0.1/x")
    url = hub.file_url(REPO, "config.json")
    places = [get(url)[0].headers["Location"] for _ in range(3)]

    assert places[0] != places[1]
    assert places[2] == "http://10.0.0.1/x"
