"""Uploads, collecting, verifying, what is available, and exports."""

import asyncio
import os
import sys

import pytest

from gemmad.core import ByteCount, ModelName, digest_of
from gemmad.server import blobs
from gemmad.server.machine import fits
from gemmad.store.store import Store
from tests.fakes.machines import machine_of
from tests.fakes.pull_scenes import FakeNetwork, FakeSource, entry, half, in_hand, remote
from tests.fakes.served import GIB, served

DATA = bytes(range(251)) * 1_200
DIGEST = digest_of(DATA)
OCTETS = {"Content-Type": "application/octet-stream"}
TARGET = "hf.co/o/target"
WEIGHTS = bytes(range(256)) * 64
EXPORTER = (
    "import json,sys; a=json.load(sys.stdin);"
    "print(json.dumps({'status': 'writing ' + a['path']}));"
    "print(json.dumps({'error': 'no room'} if a['name'].startswith('full') else"
    " {'status': 'success'})); sys.exit(3 if a['format'] == 'gguf' else 0)"
)


@pytest.fixture
async def daemon(tmp_path):
    hub = FakeSource({
        TARGET: half(TARGET, in_hand(b"{}"), remote(WEIGHTS)),
        f"{TARGET}@{'a' * 40}": half(TARGET, in_hand(b"{}"), remote(WEIGHTS)),
    })  # fmt: skip
    exporter = (sys.executable, "-c", EXPORTER)
    async with served(tmp_path, [hub], FakeNetwork(WEIGHTS), exporter=exporter) as running:
        await running.ask("/api/pull", {"model": TARGET, "draft": "none"})
        yield running


async def upload(daemon, data=DATA, digest=DIGEST, headers=OCTETS):
    async with daemon.tcp.post(f"/api/blobs/{digest}", data=data, headers=headers) as answer:
        return answer.status


@pytest.mark.parametrize("spelling", [DIGEST, DIGEST.replace(":", "-")])
async def test_a_blob_is_stored_under_its_hash(daemon, spelling):
    """201, then 200; before and after a HEAD tells."""
    async with daemon.tcp.head(f"/api/blobs/{spelling}") as answer:
        assert answer.status == 404

    assert await upload(daemon, digest=spelling) == 201
    assert await upload(daemon, digest=spelling) == 200
    async with daemon.tcp.head(f"/api/blobs/{spelling}") as answer:
        assert answer.status == 200
    assert daemon.store.blobs.read(DIGEST) == DATA


async def test_a_blob_without_a_length_is_stored(daemon):
    """Ollama's asynchronous client sends its files in chunks."""

    async def pieces():
        for begin in range(0, len(DATA), 1000):
            yield DATA[begin : begin + 1000]

    assert await upload(daemon, pieces()) == 201


@pytest.mark.parametrize(("data", "digest", "status"), [
    (b"other", DIGEST, 400), (b"", "sha256:" + "0" * 63, 400), (b"x", "sha256:..%2f..%2fetc", 400),
    (b"x", "sha512:" + "0" * 64, 400), (b"x", "SHA256:" + "0" * 64, 400),
])  # fmt: skip
async def test_other_bytes_than_announced_leave_nothing(daemon, data, digest, status):
    """Nor does a name that is no digest."""
    before = sorted(path for path in daemon.store._paths.root.rglob("*") if path.is_file())

    assert await upload(daemon, data, digest) == status
    after = sorted(path for path in daemon.store._paths.root.rglob("*") if path.is_file())
    assert after == before


async def test_an_upload_that_does_not_fit_is_refused_first(daemon, monkeypatch):
    """By its announced length, with both numbers."""
    monkeypatch.setattr(Store, "free", lambda _self: 4711)
    path = f"/api/blobs/{DIGEST}"
    async with daemon.tcp.post(path, data=DATA, headers=OCTETS) as answer:
        assert (answer.status, "4711" in (await answer.json())["error"]) == (507, True)


async def test_an_upload_that_pauses_is_given_up(daemon, monkeypatch):
    """And its part is gone, so that another can send it."""
    monkeypatch.setattr(blobs, "IDLE_S", 0.05)

    async def silence():
        yield DATA[:10]
        await asyncio.sleep(0.3)
        yield DATA[10:]

    assert await upload(daemon, silence()) == 408
    assert await upload(daemon) == 201


async def test_only_blobs_may_be_any_bytes(daemon):
    """Every other route wants JSON, and a page's request is refused here too."""
    async with daemon.tcp.post("/api/create", data=b"{}", headers=OCTETS) as answer:
        assert answer.status == 415
    assert await upload(daemon, headers={"Content-Type": "text/plain"}) == 415
    assert await upload(daemon, headers=OCTETS | {"Origin": "https://evil.com"}) == 403


async def test_garbage_is_shown_before_it_is_removed(daemon, monkeypatch):
    """A dry run by default; what a loaded pair uses stays whatever its name says."""
    await daemon.ask("/api/generate", {"model": TARGET})  # loads it
    await upload(daemon)
    daemon.store._manifests.unlink(ModelName.parse(TARGET))
    monkeypatch.setattr("gemmad.store.store.MIN_AGE_S", 0)
    status, (young,) = await daemon.ask("/api/gc", {})
    assert (status, young["blobs"], young["dry_run"]) == (200, [], True)
    assert young["note"].endswith("kept for now: 1.")

    monkeypatch.setattr(daemon.store, "_clock", lambda: 4e9)
    _, (dry,) = await daemon.ask("/api/gc", {})
    _, (wet,) = await daemon.ask("/api/gc", {"dry_run": False})

    assert dry["blobs"] == wet["blobs"] == [{"digest": DIGEST, "size": len(DATA)}]
    assert not daemon.store.blobs.has(entry(DATA))
    assert daemon.store.blobs.has(entry(WEIGHTS))


async def test_verify_names_what_is_bad_and_repairs_only_that(daemon):
    """One flipped bit costs one file."""
    path = daemon.store.blobs.check(entry(WEIGHTS))
    path.chmod(0o600)
    path.write_bytes(WEIGHTS[:-1] + b"\0")
    os.utime(path, ns=(10**18, 10**18))
    daemon.network.sent.clear()
    _, found = await daemon.ask("/api/verify", {"model": TARGET})
    _, repaired = await daemon.ask("/api/verify", {"repair": True})
    _, clean = await daemon.ask("/api/verify", {})

    bad = [record for record in found if record.get("ok") is False]
    assert [(r["kind"], r["file"], r["model"]) for r in bad] == [
        ("target", "model.safetensors", f"{TARGET}:latest")
    ]
    assert found[-1] == {"status": "success", "bad": 1, "repaired": 0}
    assert repaired[-1] == {"status": "success", "bad": 1, "repaired": 1}
    assert clean[-1] == {"status": "success", "bad": 0, "repaired": 0}
    assert len(daemon.network.sent) == 4


async def test_verify_of_an_unknown_name_is_a_404(daemon):
    """Before the stream begins."""
    assert (await daemon.ask("/api/verify", {"model": "nope"}))[0] == 404


async def test_unfinished_downloads_are_listed_and_removed(daemon):
    """With their bytes."""
    daemon.store.partial(entry(DATA)).close()
    _, (listed,) = await daemon.ask("/api/partials", {})
    async with daemon.unix.delete("/api/partials") as answer:
        assert answer.status == 200

    assert [p["digest"] for p in listed["partials"]] == [DIGEST]
    assert daemon.store.partials() == []


async def test_what_is_available_says_whether_it_fits(daemon):
    """Sizes, memory, and whether it is here already."""
    async with daemon.tcp.get("/api/available?search=E4B") as answer:
        (found,) = (await answer.json())["models"]
    async with daemon.tcp.get("/api/available?search=31b") as answer:
        assert (await answer.json())["models"] == []

    assert (found["name"], found["fits"], found["installed"]) == ("gemma4:e4b", "gpu", False)
    assert found["needed_bytes"] == 19 * GIB


@pytest.mark.parametrize(("machine", "where"), [
    (machine_of(64 * GIB, 24 * GIB), "gpu"), (machine_of(64 * GIB, 8 * GIB), "cpu"),
    (machine_of(64 * GIB, 12 * GIB, 12 * GIB), "gpus"),
    (machine_of(64 * GIB, 10 * GIB, 10 * GIB), "cpu"),  # with a runtime on each
    (machine_of(64 * GIB), "cpu"), (machine_of(16 * GIB), "no"), (machine_of(0), "unknown"),
    (machine_of(64 * GIB, 24 * GIB, note="gpu lost: error 999"), "cpu"),
])  # fmt: skip
def test_a_pair_runs_where_it_fits(machine, where):
    """A GPU first, unless it is lost, then several, then memory."""
    assert fits(machine, ByteCount(19 * GIB)) == where


@pytest.mark.parametrize(("body", "last"), [
    ({"format": "hf"}, {"status": "success"}),
    ({"format": "gguf"}, {"error": "The exporter ended with 3: ", "code": "export_failed"}),
])  # fmt: skip
async def test_an_export_is_a_childs_work(daemon, tmp_path, body, last):
    """Its records come through, and its failure too."""
    body = {"model": TARGET, "path": str(tmp_path / "out")} | body
    _, records = await daemon.ask("/api/export", body)

    assert records[0] == {"status": f"writing {tmp_path / 'out'}"}
    assert records[-1] == last


@pytest.mark.parametrize("body", [{"format": "zip", "path": "/x"}, {"format": "hf", "path": "x"}])
async def test_an_export_wants_a_format_and_a_whole_path(daemon, body):
    """Each is named."""
    assert (await daemon.ask("/api/export", {"model": TARGET} | body))[0] == 400


async def test_doctor_tells_the_machine_and_what_fits(daemon):
    """Devices and memory as the probe has them, the store, and why a model has no room."""
    status, [found] = await daemon.ask("/api/doctor", {})

    assert (status, found["simulated"]) == (200, False)
    assert [device["id"] for device in found["devices"]] == ["cuda:0", "cpu"]
    assert found["budgets"][0]["total"] == 24 * GIB
    assert found["store"]["models"] == 1
    assert [(model["fits"], model["why"]) for model in found["catalogue"]] == [("gpu", "")]


async def test_doctor_plays_a_script(daemon):
    """A machine without a GPU and with little memory; the answer says what it lacks."""
    script = {"readings": [{"host": {"total": "8GiB", "available": "6GiB"}}]}
    _, [found] = await daemon.ask("/api/doctor", {"script": script})
    status, [refused] = await daemon.ask("/api/doctor", {"script": {"readings": [{}]}})

    assert (found["simulated"], found["host"]["available"]) == (True, 6 * GIB)
    assert found["catalogue"][0]["why"] == "it needs 19 GiB, there is no GPU and the host 8 GiB"
    assert (status, "host" in refused["error"]) == (400, True)


async def test_doctor_plays_a_script_of_two_gpus(daemon):
    """What fits neither of them is split over both, and the answer says so."""
    half = {"total": "16GiB", "free": "15GiB"}
    gpus = [{"id": "cuda:0"} | half, {"id": "cuda:1"} | half]
    host = {"total": "64GiB", "available": "60GiB"}
    script = {"readings": [{"host": host, "devices": gpus}]}
    _, [found] = await daemon.ask("/api/doctor", {"script": script})

    assert [budget["id"] for budget in found["budgets"]] == ["cuda:0", "cuda:1", "cpu"]
    [model] = found["catalogue"]
    assert (model["fits"], model["why"]) == ("gpus", "the largest GPU has 16 GiB")


async def test_doctor_tells_places_only_to_callers_on_this_machine(tmp_path):
    """Over TCP nobody learns where files lie."""
    places = {"store": "/somewhere"}
    async with served(tmp_path, [], FakeNetwork(WEIGHTS), places=places) as running:
        _, [local] = await running.ask("/api/doctor", {})
        _, [remote_] = await running.ask("/api/doctor", {}, running.tcp)

    assert (local["places"], remote_["places"]) == (places, {})
