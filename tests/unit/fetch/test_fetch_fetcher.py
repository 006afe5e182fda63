"""A file comes whole into the store whatever the network does, or not at all."""

import asyncio
import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gemmad.api.errors import BadRequest, GemmaError, PullFailed, StoreBroken, WillNotFit
from gemmad.core import ByteCount
from gemmad.store.partial import Partial
from tests.fakes.hub.fetching import CHUNK, NAME, QUICK, REPO, Pull, cancelled_after, until
from tests.fakes.hub.server import FakeHub, running_hub

DATA = random.Random(7).randbytes(10 * CHUNK + 123)
LOST = 2 * CHUNK  # what a connection has under way when it is dropped: in the sockets' buffers


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with one file of eleven chunks and a small one."""
    with running_hub() as hub:
        hub.narrow()
        hub.add(REPO, {NAME: DATA, "config.json": b"{}", "empty.txt": b""})
        yield hub


@pytest.fixture
def pull(hub: FakeHub, tmp_path: Path) -> Pull:
    """The pull of that file."""
    return Pull(hub, tmp_path, DATA)


async def test_file_comes_whole_and_each_byte_once(hub: FakeHub, pull: Pull) -> None:
    """One question to the hub, ranges from the CDN over few connections, nothing twice."""
    await pull.run()

    assert pull.right
    assert hub.bytes_sent("cdn") == len(DATA)
    assert [s.where for s in hub.requests].count("hub") == 1
    assert hub.dials["cdn"] <= QUICK.connections
    assert (pull.monotonic, pull.heard[-1]) == (True, len(DATA))


@pytest.mark.parametrize(("name", "data"), [("config.json", b"{}"), ("empty.txt", b"")])
async def test_small_and_empty_files_come_too(
    hub: FakeHub, tmp_path: Path, name: str, data: bytes
) -> None:
    """A file of one piece needs no ranges, one of none no request."""
    pull = Pull(hub, tmp_path, data, name=name)
    await pull.run()

    assert pull.right


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset", "at": 20_000, "times": 6},
        {"kind": "truncate", "at": 1, "times": 6},
        {"kind": "refuse", "times": 5},
        {"kind": "stall", "at": 30_000, "times": 2},
        {"kind": "drip", "seconds": 0.05, "times": 2},
        {"kind": "status", "status": 503, "times": 4},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}, "times": 4},
        {"kind": "status", "status": 403, "times": 2},
        {"kind": "wrong-range", "times": 4},
        {"kind": "short-range", "times": 6},
        {"kind": "ignore-range", "times": 2, "after": 3},
        {"kind": "etag", "times": 1, "after": 2},
        {"kind": "size", "times": 1, "after": 2},
        {"kind": "headers", "times": 1, "count": 1000},
        {"kind": "redirect-loop", "times": 12},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('status', '')}",
)
async def test_passing_trouble_costs_no_byte_twice(hub: FakeHub, pull: Pull, fault: dict) -> None:
    """What came before a connection broke is kept; the CDN sends hardly more than the file."""
    fault = hub.misbehave(**{"where": "cdn", "path": NAME, **fault})
    await pull.run()

    assert fault.happened
    assert pull.right
    assert pull.monotonic
    # What a broken connection had under way is lost in the sockets' buffers.
    assert hub.bytes_sent("cdn") <= 1.05 * len(DATA) + fault.happened * LOST


async def test_hub_that_fails_for_a_while_is_asked_again(hub: FakeHub, pull: Pull) -> None:
    """Trouble before the redirect is no different."""
    hub.misbehave("status", where="hub", status=500, times=3)
    hub.misbehave("refuse", where="hub", times=2)
    await pull.run()

    assert pull.right


async def test_expired_link_is_renewed(hub: FakeHub, pull: Pull) -> None:
    """A link that ends in the middle of a pull costs one more question to the hub."""
    hub.misbehave("slow", where="cdn", rate=CHUNK * 8, times=None)
    task = asyncio.create_task(pull.run())
    await until(lambda: hub.bytes_sent("cdn") > CHUNK)
    hub.expire_links()
    await task

    assert pull.right
    assert any(s.status == 403 for s in hub.requests)


async def test_server_without_ranges_sends_one_stream(hub: FakeHub, pull: Pull) -> None:
    """200 to every range: one body is read through, and nothing is asked twice."""
    hub.misbehave("ignore-range", where="cdn", times=None)
    await pull.run()

    assert pull.right
    assert hub.bytes_sent("cdn") == len(DATA)


async def test_stream_that_breaks_is_passed_over_up_to_what_is_here(
    hub: FakeHub, pull: Pull
) -> None:
    """Without ranges a second stream must begin anew; its first part is not written again."""
    fault = hub.misbehave("reset", where="cdn", at=4 * CHUNK + 5, times=2, whole=True)
    hub.misbehave("ignore-range", where="cdn", times=None)
    await pull.run()

    assert fault.happened == 2
    assert pull.right
    assert pull.heard[-1] == len(DATA)


@pytest.mark.parametrize("chunk", [0, 4, 10])
async def test_wrong_byte_from_the_network_is_found_and_mended(
    hub: FakeHub, pull: Pull, chunk: int
) -> None:
    """The hash is wrong, so a second reading finds the piece; never more than one file more."""
    hub.misbehave("flip", where="cdn", at=chunk * CHUNK + 77, times=len(DATA) // CHUNK + 1)
    await pull.run()

    assert pull.right
    assert pull.monotonic
    assert hub.bytes_sent("cdn") <= 2 * len(DATA) + CHUNK


async def test_wrong_byte_in_a_piece_with_trouble_costs_little_more_than_the_piece(
    hub: FakeHub, pull: Pull
) -> None:
    """Pieces that came in several goes are read again first."""
    pull.fetcher = type(pull.fetcher)(replace(QUICK, connections=1))  # requests in order
    hub.misbehave("reset", where="cdn", at=1000, after=8)
    hub.misbehave("flip", where="cdn", at=8 * CHUNK + 5000, times=9)
    await pull.run()

    assert [s.fault for s in hub.requests if s.where == "cdn"][8:10] == ["reset", "flip"]
    assert pull.right
    assert hub.bytes_sent("cdn") <= len(DATA) + 2 * CHUNK + LOST


@pytest.mark.parametrize("kind", ["swap", "other-file", "flip"])
async def test_bytes_that_stay_wrong_are_never_committed(
    hub: FakeHub, pull: Pull, kind: str
) -> None:
    """A second reading that does not help ends the pull, and nothing is left."""
    hub.misbehave(kind, where="cdn", at=100, times=None)

    with pytest.raises(PullFailed, match=f"127.0.0.1:.* sends other bytes of {NAME}"):
        await pull.run()
    assert not pull.path.exists()
    assert hub.bytes_sent("cdn") <= 2.05 * len(DATA)
    hub.behave()
    await pull.run()
    assert pull.right


async def test_chunk_that_the_disk_changed_is_the_only_one_fetched_again(
    hub: FakeHub, pull: Pull, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wrong byte on the disk costs one chunk more, not the file."""
    commit, spoilt = Partial.commit, []

    def spoil(self: Partial) -> None:
        if not spoilt:
            part = next((tmp_path / "ingest").glob("*.part"))
            with part.open("r+b") as file:
                spoilt.append(file.seek(5 * CHUNK + 9))
                file.write(bytes([DATA[5 * CHUNK + 9] ^ 1]))
            self.reopen(5)
            self.finish(5, self_crc(5))
        commit(self)

    def self_crc(chunk: int) -> int:
        import zlib

        return zlib.crc32(DATA[chunk * CHUNK : (chunk + 1) * CHUNK])

    monkeypatch.setattr(Partial, "commit", spoil)
    await pull.run()

    assert pull.right
    assert hub.bytes_sent("cdn") == len(DATA) + CHUNK


async def test_cancelled_pull_ends_at_once_and_goes_on_where_it_was(
    hub: FakeHub, pull: Pull
) -> None:
    """Cancel takes under a second, even while nothing comes; what came is not fetched again."""
    hub.misbehave("stall", where="cdn", at=CHUNK // 2, seconds=30, times=None, after=4)
    pull.fetcher = type(pull.fetcher)(replace(QUICK, stall_s=30))
    took = await cancelled_after(
        asyncio.create_task(pull.run()), lambda: hub.bytes_sent("cdn") > 5 * CHUNK
    )
    hub.behave()
    await pull.run()

    assert took < 1
    assert pull.right
    assert hub.bytes_sent("cdn") <= len(DATA) + CHUNK // 2


async def test_cancel_does_not_wait_for_a_name_server(
    hub: FakeHub, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that hangs is left behind."""
    answer = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answer.wait(20) and [])
    task = asyncio.create_task(pull.run())
    took = await cancelled_after(
        task, itertools.chain([False] * 5, itertools.repeat(True)).__next__
    )
    answer.set()

    assert took < 1


async def test_event_loop_stays_free(hub: FakeHub, pull: Pull) -> None:
    """Nothing of a fetch runs in the loop but a glance at its progress."""
    worst, task = 0.0, asyncio.create_task(pull.run())
    while not task.done():
        began = time.perf_counter()
        await asyncio.sleep(0)
        worst = max(worst, time.perf_counter() - began)
    await task

    assert worst < 0.2


async def test_rate_holds_over_all_fetches(hub: FakeHub, tmp_path: Path) -> None:
    """Two files at once come no faster than one may."""
    pulls = [Pull(hub, tmp_path / str(n), DATA) for n in range(2)]
    pulls[1].fetcher = pulls[0].fetcher
    rate = len(DATA) * 4
    pulls[0].fetcher.set_rate(ByteCount(rate))
    began = time.monotonic()
    await asyncio.gather(*(pull.run() for pull in pulls))
    took = time.monotonic() - began

    assert all(pull.right for pull in pulls)
    assert 0.35 < took < 2


async def test_full_disk_is_said_with_numbers_and_what_came_is_kept(
    hub: FakeHub, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk's error is not taken for the network's, and the pull goes on once there is room."""
    write, writes = Partial.write, itertools.count()

    def full(self: Partial, offset: int, data: memoryview) -> None:
        if next(writes) >= 4:
            raise OSError(28, os.strerror(28))
        write(self, offset, data)

    monkeypatch.setattr(Partial, "write", full)
    with pytest.raises(WillNotFit, match=rf"of the {len(DATA)} bytes of {NAME}"):
        await pull.run()
    monkeypatch.setattr(Partial, "write", write)
    await pull.run()

    assert pull.right
    assert hub.bytes_sent("cdn") < 2 * len(DATA)


async def test_disk_that_cannot_be_read_back_ends_the_pull_and_its_threads(
    hub: FakeHub, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the hashing thread stops the others."""

    def broken(_: Partial) -> None:
        raise OSError(5, os.strerror(5))

    hub.misbehave("stall", where="cdn", seconds=30, times=None, after=3)
    pull.fetcher = type(pull.fetcher)(replace(QUICK, stall_s=30))
    monkeypatch.setattr(Partial, "digest_ahead", broken)
    with pytest.raises(StoreBroken, match=f"The disk refused a part of {NAME}: Input/output error"):
        await pull.run()
    await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("fetch")])


async def test_disk_that_fails_to_sync_ahead_leaves_nothing_to_believe(
    hub: FakeHub, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed sync is told once, so the commit's would not hear of it: all is fetched again."""
    synced: list[int] = []

    def broken(partial: Partial) -> None:
        synced.append(partial.completed)
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr("gemmad.fetch.download.SYNC_BYTES", CHUNK)
    monkeypatch.setattr(Partial, "sync_ahead", broken)
    hub.misbehave("stall", where="cdn", seconds=1, after=6)
    with pytest.raises(StoreBroken, match="Input/output error"):
        await pull.run()
    monkeypatch.setattr(Partial, "sync_ahead", lambda _: None)
    before = hub.bytes_sent("cdn")
    await pull.run()

    assert (pull.right, len(synced)) == (True, 1)
    assert hub.bytes_sent("cdn") - before == len(DATA)


@pytest.mark.parametrize("token", ["hf_x\n", "hf x", "", "hf_é"])
async def test_token_that_is_none_is_said_so(hub: FakeHub, pull: Pull, token: str) -> None:
    """It never reaches a header; an empty one is as none."""
    pull.remote = replace(pull.remote, token=token)
    if token:
        with pytest.raises(BadRequest, match="characters that no token has"):
            await pull.run()
    else:
        await pull.run()
        assert hub.tokens_seen("hub") == set()


@pytest.mark.parametrize(
    ("fault", "text", "fix"),
    [
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, "licence", "HF_TOKEN"),
        ({"status": 401}, "HTTP 401", "HF_TOKEN"),
        ({"status": 404}, "not at 127.0.0.1:.* any more", "pull again"),
        ({"status": 400}, "answered HTTP 400", "pull again"),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, "wait 3600 s", "Pull again"),
        ({"status": 503}, "HTTP 503 .* attempts", "what is here is kept"),
    ],
)
async def test_final_answers_end_the_pull_with_file_host_and_next_step(
    hub: FakeHub, pull: Pull, fault: dict, text: str, fix: str
) -> None:
    """The message says what, where, and what to do."""
    hub.misbehave("status", where="hub", times=None, **fault)

    with pytest.raises(PullFailed, match=text) as error:
        await pull.run()
    assert NAME in error.value.message
    assert "127.0.0.1" in error.value.message
    assert fix in (error.value.fix or "")


@pytest.mark.parametrize("kind", ["etag", "size", "refuse", "reset", "stall"])
async def test_trouble_that_does_not_pass_ends_the_pull(
    hub: FakeHub, pull: Pull, kind: str
) -> None:
    """After the attempts it ends, and what came is kept for the next."""
    hub.misbehave(kind, where="cdn", times=None, after=3)
    pull.fetcher = type(pull.fetcher)(replace(QUICK, attempts=4))

    with pytest.raises(PullFailed, match=f"{NAME} could not be fetched from 127.0.0.1"):
        await pull.run()
    hub.behave()
    await pull.run()
    assert pull.right
    refused = sum(s.fault in ("etag", "size") for s in hub.requests)
    assert hub.bytes_sent("cdn") <= 1.05 * len(DATA) + (1 + refused) * CHUNK


async def test_file_that_was_replaced_on_the_hub_is_seen_before_its_bytes(
    hub: FakeHub, pull: Pull
) -> None:
    """The hub's redirect names another checksum: nothing is downloaded."""
    hub.add(REPO, {NAME: DATA[::-1]})

    with pytest.raises(PullFailed, match=f"{NAME} at .* is another file now"):
        await pull.run()
    assert hub.bytes_sent("cdn") == 0


async def test_slow_connection_hands_its_range_to_another(hub: FakeHub, pull: Pull) -> None:
    """One of three connections crawls; the others take over the rest of its range."""
    hub.misbehave("slow", where="cdn", rate=8 << 10, times=1, after=2)
    began = time.monotonic()
    await pull.run()

    assert pull.right
    assert time.monotonic() - began < CHUNK / (8 << 10) / 2


@pytest.mark.filterwarnings("error")
async def test_errors_of_the_fetcher_are_for_people(hub: FakeHub, pull: Pull) -> None:
    """No error shows a signature of a link, a token or a path of this machine."""
    pull.remote = replace(pull.remote, token="hf_canary")
    hub.misbehave("status", where="cdn", status=500, times=None)

    with pytest.raises(GemmaError) as error:
        await pull.run()
    assert not any(secret in str(error.value) for secret in ("Signature", "hf_canary", "/tmp"))
