"""The real daemon pulls from a hub: pairs, drafters, resumption, jobs, and what it refuses."""

import asyncio
import contextlib
import hashlib
import json
import random
import statistics
import time
import zlib
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

import gemmamodelfiles
from gemmad.store.journal import read_header, read_records
from tests.fakes.builtin_pair import DRAFTER_CONFIG
from tests.fakes.hub.server import running_hub
from tests.fakes.hub_pairs import MIB, HubDaemon, RealHubDaemon, add_pair

CHUNK = 16 * MIB
MODELFILES = Path(gemmamodelfiles.__path__[0]) / "nano"
SUCCESS = {"status": "success"}


@pytest.fixture(scope="module")
def hub():
    with running_hub() as running:
        running.narrow()  # what is sent is what was read, but for a few kilobytes
        yield running


@pytest.fixture(scope="module")
def shared(hub, tmp_path_factory):
    """One daemon for tests with a repository of their own."""
    made = HubDaemon(tmp_path_factory.mktemp("hub") / "home", hub)
    made.start(GEMMA_PULL_GRACE="0.2s", GEMMA_PULL_RATE="8M")
    yield made
    made.close()


@pytest.fixture
def daemon(tmp_path, hub):
    made = HubDaemon(tmp_path / "home", hub)
    yield made
    made.close()


@pytest.fixture
def repo(request):
    """A repository that no other test uses."""
    return f"google/gemma-4-{zlib.crc32(request.node.name.encode())}-it"


def over_unix(daemon):
    connector = aiohttp.UnixConnector(str(daemon.socket))
    return aiohttp.ClientSession("http://gemmad", connector=connector)


async def ask(daemon, path, body=None, method="POST"):
    """Status and records."""
    async with (
        over_unix(daemon) as session,
        session.request(method, path, json=body) as answer,
    ):
        return answer.status, [json.loads(line) for line in (await answer.read()).splitlines()]


async def pull(daemon, repo, **wish):
    return await ask(daemon, "/api/pull", {"model": f"hf.co/{repo}", **wish})


async def shown(daemon, repo, prefix="hf.co/"):
    return (await ask(daemon, "/api/show", {"model": f"{prefix}{repo}"}))[1][0]


def sent(hub, repo):
    """Bytes of weights that were sent of one repository, all its commits together."""
    commits = hub.protocol.repositories[repo].commits.values()
    own = {file.sha256 for files in commits for file in files.values()}
    return sum(r.sent for r in list(hub.requests) if r.path.rsplit("/", 1)[-1] in own)


@contextlib.asynccontextmanager
async def pulled_until(daemon, repo, nbytes, **wish):
    """Inside, a pull has brought so many bytes; then its client leaves. Gives where it began."""
    async with (
        over_unix(daemon) as session,
        session.post("/api/pull", json={"model": f"hf.co/{repo}", **wish}) as answer,
    ):
        seen = []
        async for line in answer.content:
            record = json.loads(line)
            if record.get("total", 0) > MIB:
                seen.append(record.get("completed", 0))
                if seen[-1] >= nbytes:
                    break
        assert seen == sorted(seen)
        yield seen[0]
        answer.close()


async def test_a_pair_is_found_pulled_and_answers(hub, shared, repo):
    """Target, its sibling as the drafter, nothing else; commits in the Modelfile; and it runs."""
    add_pair(hub, repo)
    status, records = await pull(shared, repo)
    model = await shown(shared, repo)
    _, answers = await ask(shared, "/api/generate", {"model": f"hf.co/{repo}", "prompt": "hi you"})

    assert (status, records[-1]) == (200, SUCCESS)
    assert {r["kind"] for r in records if "kind" in r} == {"target", "drafter", "document"}
    assert model["drafter"]["source"]["source"] == f"hf.co/{repo}-assistant"
    assert f"FROM hf.co/{repo}@{model['source']['revision']}" in model["modelfile"]
    assert f"DRAFT hf.co/{repo}-assistant@" in model["modelfile"]
    assert "".join(r["response"] for r in answers) == "echo: hi you"
    assert hub.sent_for("*.py") == 0


async def test_a_pull_again_takes_what_changed_and_nothing_else(hub, shared, repo):
    """A new commit; the earlier wish for no drafter holds."""
    add_pair(hub, repo)
    await pull(shared, repo, draft="none", quantize="int8")
    old, before = await shown(shared, repo), sent(hub, repo)
    await pull(shared, repo)
    assert sent(hub, repo) == before

    add_pair(hub, repo, seed=1)
    await pull(shared, repo)
    new = await shown(shared, repo)
    assert new["source"]["revision"] != old["source"]["revision"]
    assert (new["drafter"], "quantize" in new["parameters"]) == (None, True)
    assert MIB <= sent(hub, repo) - before < 1.2 * MIB


async def test_a_modelfile_with_commits_makes_the_pair_offline(hub, shared, repo):
    """What is in the store is not asked for again."""
    add_pair(hub, repo)
    await pull(shared, repo)
    model, before = await shown(shared, repo), len(hub.requests)
    commit, origin = model["source"]["revision"], model["drafter"]["source"]
    body = {"model": "mine", "from": f"hf.co/{repo}@{commit}", "system": "be kind",
            "draft": f"{origin['source']}@{origin['revision']}"}  # fmt: skip
    status, records = await ask(shared, "/api/create", body)

    assert (status, records[-1], len(hub.requests)) == (200, SUCCESS, before)
    assert (await shown(shared, "mine", ""))["drafter"] == model["drafter"]


async def test_a_drafter_of_another_target_is_refused_or_left_out(hub, shared, repo):
    """Named: an error with both values, before any weights. Found: a note."""
    add_pair(hub, repo)
    config = json.dumps(DRAFTER_CONFIG | {"backbone_hidden_size": 1536}).encode()
    hub.add(f"{repo}-assistant", {"config.json": config, "model.safetensors": bytes(100)})
    status, (refused,) = await pull(shared, repo, draft=f"hf.co/{repo}-assistant")
    before = sent(hub, repo)
    await pull(shared, repo)
    model = await shown(shared, repo)

    assert (status, refused["code"], before < MIB) == (409, "pair_mismatch", True)
    assert "1536" in refused["error"]
    assert "256" in refused["error"]
    assert (model["drafter"], "1536" in model["notes"][0]) == (None, True)


async def test_a_drafter_is_attached_later(hub, shared, repo):
    """From its repository, without the target's bytes again; and taken away."""
    add_pair(hub, repo)
    await pull(shared, repo, draft="none")
    before, name = sent(hub, repo), f"hf.co/{repo}"
    body = {"model": name, "draft": f"{name}-assistant"}
    assert (await ask(shared, "/api/draft", body))[1][-1] == SUCCESS
    assert (await shown(shared, repo))["drafter"]["source"]["source"] == body["draft"]

    assert (await ask(shared, "/api/draft", {"model": name}, "DELETE"))[0] == 200
    assert (await shown(shared, repo))["drafter"] is None
    assert sent(hub, repo) == before


async def test_a_token_goes_to_the_hub_alone(hub, daemon, repo):
    """A gated repository opens with it, and no other host sees it, nor a log."""
    add_pair(hub, repo)
    hub.protocol.repositories[repo].gated = True
    daemon.start(HF_TOKEN="hf_bad")
    status, (refused,) = await pull(daemon, repo)
    assert (status, "token" in refused["error"].lower()) == (502, True)
    daemon.stop()

    daemon.start(HF_TOKEN="hf_good")
    assert (await pull(daemon, repo))[1][-1] == SUCCESS
    assert "hf_good" in hub.tokens_seen("hub")
    assert not hub.saw("cdn", "hf_good")
    assert "hf_good" not in "".join(p.read_text() for p in (daemon.home / "logs").glob("*.log"))


async def test_a_full_disk_is_told_before_the_first_byte(hub, shared, repo):
    """507 with what is needed and free; no weights were asked for."""
    hub.add(repo, {"model.gguf": b"GGUF"})
    for files in hub.protocol.repositories[repo].commits.values():
        files |= {name: replace(file, size=1 << 60) for name, file in files.items()}
    status, (refused,) = await pull(shared, repo, draft="none")

    assert (status, refused["code"]) == (507, "will_not_fit")
    assert str((1 << 60) + (1 << 30)) in refused["error"]
    assert "free" in refused["error"]
    assert hub.sent_for("model.gguf") == 0


async def jobs(daemon):
    return (await ask(daemon, "/api/pulls", method="GET"))[1][0]["pulls"]


async def until_listed(daemon, count):
    async with asyncio.timeout(30):
        while len(await jobs(daemon)) != count:  # noqa: ASYNC110  (over HTTP there is no event)
            await asyncio.sleep(0.05)


async def test_a_client_that_leaves_ends_its_pull_after_the_grace(hub, shared, repo):
    """A detached one goes on; the next pull begins where the last one was."""
    add_pair(hub, repo, 6 * MIB)
    async with pulled_until(shared, repo, MIB):
        pass
    await until_listed(shared, 0)
    _, (left,) = await ask(shared, "/api/partials", {})
    assert left["bytes"] >= MIB

    async with pulled_until(shared, repo, MIB, detach=True) as began:
        assert began >= MIB
    await asyncio.sleep(0.3)
    (job,) = await jobs(shared)
    assert (job["clients"], job["detached"]) == (0, True)
    await until_listed(shared, 0)

    assert (await shown(shared, repo))["drafter"]


async def test_two_clients_join_one_pull_and_one_leaves(hub, shared, repo):
    """The other hears it to its end; every byte came once."""
    add_pair(hub, repo, 6 * MIB)
    async with pulled_until(shared, repo, MIB), asyncio.timeout(10):
        staying = asyncio.create_task(pull(shared, repo))
        while (await jobs(shared))[0]["clients"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    status, records = await staying

    assert (status, records[-1]) == (200, SUCCESS)
    assert sent(hub, repo) < 6.1 * MIB


async def test_a_pull_is_cancelled_by_name(hub, shared, repo):
    """Its client is told within a second; the part stays until it is removed."""
    add_pair(hub, repo, 8 * MIB)
    async with pulled_until(shared, repo, MIB):
        began = time.monotonic()
        status, _ = await ask(shared, "/api/pulls", {"model": f"hf.co/{repo}"}, "DELETE")
        await until_listed(shared, 0)
        assert (status, time.monotonic() - began < 1.5) == (200, True)

    _, (removed,) = await ask(shared, "/api/partials", None, "DELETE")
    assert removed["bytes"] > 0


async def test_a_daemon_that_is_told_to_stop_waits_for_no_pull(hub, daemon, repo):
    """Its client is told, and the hub may be as silent as it likes."""
    fault = hub.misbehave("stall", path=f"/api/models/{repo}*", seconds=30, times=None)
    await asyncio.to_thread(daemon.start)
    pulling = asyncio.create_task(pull(daemon, repo))
    async with asyncio.timeout(10):
        while not fault.happened:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    began = time.monotonic()
    assert await asyncio.to_thread(daemon.stop) == 0
    took = time.monotonic() - began
    hub.behave()

    assert "stopped during the pull" in (await pulling)[1][-1]["error"]
    assert took < 3


async def test_verify_fetches_only_what_is_bad(hub, shared, repo):
    """A flipped bit is found and its file pulled from the same commit, though main moved on."""
    data = bytearray(add_pair(hub, repo, seed=7))
    await pull(shared, repo)
    before, commit = sent(hub, repo), (await shown(shared, repo))["source"]["revision"]
    add_pair(hub, repo, seed=8)
    hexed = hashlib.sha256(data).hexdigest()
    blob = shared.home / "store" / "blobs" / "sha256" / hexed[:2] / hexed
    data[MIB // 2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(data)
    _, records = await ask(shared, "/api/verify", {"model": f"hf.co/{repo}", "repair": True})

    assert records[-1] == {"status": "success", "bad": 1, "repaired": 1}
    assert sent(hub, repo) - before < 1.2 * MIB
    assert (await shown(shared, repo))["source"]["revision"] == commit
    assert (await ask(shared, "/api/verify", {"model": f"hf.co/{repo}"}))[1][-1]["bad"] == 0


async def killed_in_its_pull(daemon, repo, after_s):
    """A daemon was killed; how long it took to be ready, and whether its pull had ended."""
    began = time.monotonic()
    await asyncio.to_thread(daemon.start, GEMMA_PULL_RATE="30M")
    _, (listed,) = await ask(daemon, "/api/tags", method="GET")
    ready = time.monotonic() - began
    assert not any("broken" in model for model in listed["models"])
    pulling = asyncio.create_task(pull(daemon, repo))
    await asyncio.wait({pulling}, timeout=after_s)
    ended = pulling.done()
    await asyncio.to_thread(daemon.kill)
    await asyncio.gather(pulling, return_exceptions=True)
    return ready, ended


def require_whole_blobs(daemon):
    for blob in (daemon.home / "store" / "blobs").rglob("*"):
        if blob.is_file():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def kept(daemon, data):
    """Bytes of the file that a later life goes on from: journaled, or all of a blob."""
    hexed = hashlib.sha256(data).hexdigest()
    if (daemon.home / "store" / "blobs" / "sha256" / hexed[:2] / hexed).exists():
        return len(data)
    journal = daemon.home / "store" / "ingest" / f"{hexed}.journal"
    known = journal.read_bytes() if journal.exists() else b""
    header = read_header(known)
    return sum(chunk.nbytes for chunk in read_records(known, header).values()) if header else 0


@pytest.mark.parametrize("kills", [
    3, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1500)]),
])  # fmt: skip
async def test_kills_of_the_daemon_lose_nothing_but_what_was_in_flight(hub, daemon, repo, kills):
    """No name is half, every blob is whole, and no kill costs more than a chunk."""
    rng, ready, lost, landed = random.Random(kills), [], [], 0
    while len(ready) < kills:
        data = add_pair(hub, repo, 24 * MIB, seed=len(ready))  # a new commit each time
        before, here = sent(hub, repo), 0
        for _ in range(min(8, kills - len(ready))):
            seconds, ended = await killed_in_its_pull(daemon, repo, rng.uniform(0.1, 0.8))
            ready.append(seconds)
            now, came = kept(daemon, data), sent(hub, repo) - before
            lost.append(came - (now - here))
            before, here = before + came, now
            landed += any((daemon.home / "store" / "ingest").glob("*.part"))
            require_whole_blobs(daemon)
            if ended:
                break
        await asyncio.to_thread(daemon.start)
        assert (await pull(daemon, repo))[1][-1] == SUCCESS
        await asyncio.to_thread(daemon.kill)
        assert sent(hub, repo) - before <= len(data) - here + MIB
    print(f"{len(ready)} kills, {landed} in a download: {statistics.mean(lost) / MIB:.3f} MiB "
          f"fetched twice a kill, {max(lost) / MIB:.3f} MiB at most; ready again in "
          f"{statistics.median(ready):.2f} s, {max(ready):.2f} s at most")  # fmt: skip

    assert max(lost) < CHUNK
    assert statistics.median(ready) < 2  # the longest depends on what else runs on the machine


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_pulled_pair_runs_and_is_exported(hub, tmp_path, repo):
    """The real runner: the pair from the hub answers as the built-in one, with its drafter."""
    files = {p.name: p for p in (MODELFILES / "target").iterdir()}
    hub.add(repo, files | {"LICENSE": MODELFILES / "LICENSE"})
    hub.add(f"{repo}-assistant", {p.name: p for p in (MODELFILES / "drafter").iterdir()})
    daemon = RealHubDaemon(tmp_path / "home", hub)
    try:
        daemon.start()
        await pull(daemon, repo)
        await ask(daemon, "/api/pull", {"model": "nano"})
        said = []
        for model in (f"hf.co/{repo}", "nano"):
            question = {"model": model, "prompt": "How do I pull a model?", "stream": False}
            body = question | {"options": {"temperature": 0, "num_predict": 24}}
            said.append((await ask(daemon, "/api/generate", body))[1][0])
        out = tmp_path / "out"
        body = {"model": f"hf.co/{repo}", "format": "hf", "path": str(out)}
        _, exported = await ask(daemon, "/api/export", body)
    finally:
        daemon.close()

    assert said[0]["response"] == said[1]["response"] != ""
    assert said[0]["draft"]["drafted"] > 0
    assert exported[-1]["status"] == "success", exported[-1]
    weights = [hashlib.sha256(p.read_bytes()).digest() for p in out.rglob("model.safetensors")]
    assert hashlib.sha256(files["model.safetensors"].read_bytes()).digest() in weights
