"""What is in memory, as /api/ps and /api/events say it."""

import json
import math
from dataclasses import replace

from gemmad.core import ByteCount, Digest
from gemmad.dialects.ollama import running
from gemmad.residency.seen import EventKind, LayersSeen, ResidencyEvent
from tests.fakes.seen_scenes import BUSY, GIB, LEAN, LOADING, MIB, SCENE
from tests.fakes.store_scenes import manifest

OLLAMAS = {
    "name", "model", "size", "size_vram", "digest", "details", "expires_at", "context_length",
}  # fmt: skip


def test_ps_has_every_field_of_ollamas() -> None:
    """A client of Ollama reads the record as it is; what lasts longest comes first."""
    pair = manifest("gemma4:e4b", {"f.json": b""})

    models = running.ps(SCENE, {BUSY.manifest_id: pair}, 0)["models"]

    assert [model["name"] for model in models] == ["gemma4:e2b", "gemma4:e4b", "nano:latest"]
    assert all(model.keys() >= OLLAMAS for model in models)
    assert models[1]["details"]["family"] == pair.details.family
    assert models[1]["digest"] == "a1" * 32


def test_ps_shows_both_halves_apart() -> None:
    """Bytes, device and state of target and drafter, and what drafting does."""
    record = running.running(BUSY, None, 0)

    assert record["target"] == {
        "device": "cuda:0", "size": 8 * GIB, "why": "the best device here",
        "layers": [],
    }  # fmt: skip
    assert record["drafter"] == {
        "loaded": True, "state": "attached", "device": "cuda:0", "size": 160 * MIB, "note": None,
    }  # fmt: skip
    assert (record["depth"], record["acceptance"][1]) == (4, 0.6)
    assert record["size"] == record["size_vram"] == int(9.5 * GIB) + 416 * MIB


def test_split_target_shows_which_layers_are_where() -> None:
    """By device, with bytes; in VRAM all the same."""
    parts = (
        LayersSeen("cuda:1", 0, 20, ByteCount(3 * GIB), ByteCount(GIB)),
        LayersSeen("cuda:0", 20, 22, ByteCount(5 * GIB)),
    )
    split = replace(BUSY, target=replace(BUSY.target, device="cuda:1+cuda:0", layers=parts))
    record = running.running(split, None, 0)

    assert record["target"]["device"] == record["device"] == "cuda:1+cuda:0"
    assert record["target"]["layers"][0] == {
        "device": "cuda:1", "first": 0, "count": 20, "nbytes": 3 * GIB, "kv_bytes": GIB,
    }  # fmt: skip
    assert record["size_vram"] == record["size"]


def test_drafter_that_is_away_says_why() -> None:
    """State and reason, and no device."""
    drafter = running.running(LEAN, None, 0)["drafter"]

    assert (drafter["loaded"], drafter["state"], drafter["device"]) == (False, "detached", None)
    assert drafter["note"] == "to make room for gemma4:e4b"


def test_size_on_a_cpu_is_no_vram() -> None:
    """As Ollama counts."""
    on_host = replace(BUSY, target=replace(BUSY.target, device="cpu"))

    assert running.running(on_host, None, 0)["size_vram"] == 0


def test_pair_that_loads_has_the_size_of_its_files() -> None:
    """Nothing is measured yet; how far it is stands beside."""
    pair = manifest("nano", {"model.safetensors": b"1234"})

    record = running.running(LOADING, pair, 0)

    assert (record["size"], record["size_vram"], record["device"]) == (pair.size, 0, None)
    assert record["progress"] == {"phase": "target", "done": 1, "total": 4}


def test_pair_kept_for_ever_expires_in_centuries() -> None:
    """An infinite lifetime is still a date that clients can read."""
    record = running.running(replace(LEAN, expires_in_s=math.inf), None, 0)

    assert record["expires_at"].startswith("22")


def test_a_refused_pair_is_no_running_model() -> None:
    """Ollama's clients see what runs; the pair stands beside it with the reason."""
    record = running.ps(SCENE, {}, 0)
    (refused,) = record["refused"]

    assert "gemma4:12b" not in [model["name"] for model in record["models"]]
    assert (refused["model"], refused["crashes"]["reason"]) == ("gemma4:12b", "SIGILL")
    assert refused["crashes"]["log"] == ["last"]


def test_crashes_carry_their_last_lines() -> None:
    """How often, why, until when the pair is refused."""
    crashes = running.running(LOADING, None, 0)["crashes"]

    assert (crashes["count"], crashes["reason"]) == (3, "SIGSEGV")
    assert crashes["refused_until"].startswith("2027-01-15T08:01:00")
    assert crashes["log"] == [f"line {n}" for n in range(4, 9)]


def test_budgets_and_queue_are_told() -> None:
    """Each memory once, by what takes it, and who waits how long."""
    record = running.ps(SCENE, {}, 0)

    assert record["budgets"][0]["ours"]["drafter"] == 160 * MIB
    assert record["budgets"][1]["notes"] == ["swap is in use"]
    assert record["queue"][1] == {"model": "nano:latest", "priority": "batch", "waiting_s": 1.0}


def test_events_are_json_whatever_their_numbers() -> None:
    """An infinite number has no place in JSON and is left out."""
    numbers = {"bytes": 5.0, "left_s": math.inf}
    told = ResidencyEvent(1.5, EventKind.EVICTED, "nano", "to make room", numbers)

    assert json.loads(json.dumps(running.event(told), allow_nan=False)) == {
        "event": "evicted",
        "at": "1970-01-01T00:00:01.500000000Z",
        "model": "nano",
        "reason": "to make room",
        "numbers": {"bytes": 5.0},
    }


def test_unknown_manifest_leaves_details_empty() -> None:
    """A name that was rebound while its pair is in memory."""
    unknown = replace(BUSY, manifest_id=Digest("sha256:" + "0" * 64))

    assert running.running(unknown, None, 0)["details"] == {}
