"""A pull through a hub server that we did not write: olah, a mirror of the hub, before the fake."""

import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

from gemmad.core import ByteCount, Digest, FileEntry
from gemmad.fetch.fetcher import Fetcher
from gemmad.fetch.limits import FetchLimits
from gemmad.sources.half import Remote
from gemmad.sources.hub import HubSource
from gemmad.sources.hub_client import HubClient
from gemmad.sources.reference import Reference
from gemmad.store.disk import Disk
from gemmad.store.partial import Partial
from gemmad.store.paths import StorePaths
from tests.fakes.hub.client import go_online
from tests.fakes.hub.fetching import NAME, REPO
from tests.fakes.hub.server import FakeHub, running_hub

# It brings a web framework that nothing else here needs: it lives in an environment of its own.
BESIDE = Path(sys.prefix, "mirror", "bin", "olah-cli")
OLAH = os.environ.get("OLAH_CLI") or shutil.which("olah-cli") or (BESIDE.exists() and BESIDE)
CHUNK = 1 << 20
WEIGHTS = random.Random(3).randbytes(20 * CHUNK + 77)
CONFIG = b'{"model_type": "gemma4"}'
START_S = 30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OLAH, reason="olah is not installed: make test-all does, or OLAH_CLI"),
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The hub that is mirrored."""
    go_online(monkeypatch, tmp_path)
    with running_hub() as hub:
        hub.add(REPO, {NAME: WEIGHTS, "config.json": CONFIG})
        yield hub


@pytest.fixture
def mirror(hub: FakeHub, tmp_path: Path) -> Iterator[str]:
    """The mirror's URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = f"127.0.0.1:{port}"
    where = [f"--hf-netloc={hub.url[7:]}", f"--hf-lfs-netloc={hub.cdn_url[7:]}"]
    where += [f"--mirror-netloc={here}", f"--mirror-lfs-netloc={here}"]
    where += ["--hf-scheme=http", "--mirror-scheme=http", "--host=127.0.0.1", f"--port={port}"]
    kept = [f"--repos-path={tmp_path / 'repos'}", f"--log-path={tmp_path / 'logs'}"]
    command = [str(OLAH), *where, *kept]
    with (tmp_path / "olah.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        wait_for(port, process)
        yield f"http://{here}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Something listens on the port."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("olah did not start")


async def fetch(mirror: str, name: str, entry: FileEntry, root: Path) -> bytes:
    """The file as the store has it after a pull by the real client's URL and our fetcher."""
    url = hf_hub_url(REPO, name, endpoint=mirror)
    paths = StorePaths(root)
    heard: list[int] = []
    with Partial(entry, paths, Disk(), chunk_bytes=CHUNK) as partial:
        await Fetcher(FetchLimits(backoff_s=0.1)).fetch(Remote(url), partial, heard.append)
    assert heard == sorted(heard)
    return paths.blob(entry.digest).read_bytes()


async def test_pull_through_a_mirror_brings_the_right_bytes(
    hub: FakeHub, mirror: str, tmp_path: Path
) -> None:
    """Metadata by the real client, bytes by our fetcher; a second pull is the mirror's own.

    The mirror does not hand on what `model_info` asks for of files, so hashes come with the tree.
    """
    api = HfApi(endpoint=mirror, token=False)
    info = api.model_info(REPO)
    files = {file.path: file for file in api.list_repo_tree(REPO, revision=info.sha)}
    weights = files[NAME].lfs
    assert weights is not None
    entry = FileEntry(Digest(f"sha256:{weights['sha256']}"), ByteCount(weights["size"]))

    assert await fetch(mirror, NAME, entry, tmp_path / "one") == WEIGHTS
    sent = hub.bytes_sent("cdn")
    assert await fetch(mirror, NAME, entry, tmp_path / "two") == WEIGHTS
    assert hub.bytes_sent("cdn") == sent
    metadata = get_hf_file_metadata(hf_hub_url(REPO, NAME, endpoint=mirror), token=False)
    assert (metadata.size, metadata.commit_hash) == (len(WEIGHTS), info.sha)


async def test_a_pair_is_planned_and_fetched_through_a_mirror(
    hub: FakeHub, mirror: str, tmp_path: Path
) -> None:
    """HF_ENDPOINT set to it is all a user does, though it hands on no sizes with a listing."""
    source = HubSource(lambda: HubClient(mirror))
    reference = Reference.parse(f"hf.co/{REPO}")
    half = source.target(reference)
    weights = next(file for file in half.files if file.name == NAME)

    assert {file.name for file in half.files} == {NAME, "config.json"}
    assert half.origin.revision == hub.protocol.repositories[REPO].branches["main"]
    assert source.pair_of(reference, half) is None
    assert isinstance(weights.bytes, Remote)
    assert await fetch(mirror, NAME, weights.entry, tmp_path) == WEIGHTS


async def test_small_file_comes_through_a_mirror(mirror: str, tmp_path: Path) -> None:
    """What is in git, not in LFS, comes as well."""
    digest = Digest(f"sha256:{hashlib.sha256(CONFIG).hexdigest()}")
    entry = FileEntry(digest, ByteCount(len(CONFIG)))

    assert await fetch(mirror, "config.json", entry, tmp_path) == CONFIG
