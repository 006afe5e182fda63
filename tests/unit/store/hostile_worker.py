"""A process of its own that sends hostile strings through every door of the store.

It notes by Python's audit events what was opened, made, moved or removed, wherever links lead, and
prints what lay outside of the store's directory.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from gemmad.api.errors import GemmaError
from gemmad.core import ByteCount, FileEntry, ModelName, encode_manifest
from gemmad.store.store import Store
from tests.fakes.pull_scenes import FakeNetwork
from tests.fakes.served import Served, served
from tests.fakes.store_scenes import entry, manifest, put
from tests.unit.store.hostile_texts import hostile_texts

DATA = b"some weights"
_PATHS = {
    "open": 1, "os.listdir": 1, "os.scandir": 1, "os.mkdir": 1, "os.rename": 2, "os.remove": 1,
    "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.chmod": 1, "os.utime": 1, "os.truncate": 1,
    "os.chown": 1, "os.setxattr": 1, "shutil.rmtree": 1, "subprocess.Popen": 1, "os.exec": 1,
}  # fmt: skip


class Watch:
    """While `on`, paths of audit events that lead outside of `root` are noted."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.on = False
        self.seen = 0
        self.outside: set[str] = set()
        sys.addaudithook(self._event)

    def _event(self, event: str, args: tuple) -> None:
        if not self.on or event not in _PATHS:
            return
        for path in args[: _PATHS[event]]:
            if isinstance(path, str | bytes | os.PathLike):
                self._path(event, os.fsdecode(path))

    def _path(self, event: str, path: str) -> None:
        self.seen += 1
        folder, name = os.path.split(os.path.abspath(path))
        real = os.path.join(os.path.realpath(folder), name)  # the last link is not followed
        if real != self.root and not real.startswith(self.root + os.sep):
            self.outside.add(f"{event} {real}")


def plant(store: Store, outside: Path) -> None:
    """Links out of the store where directories and files are expected."""
    paths = store._paths
    hexes = {path.name for path in paths.blobs.iterdir()}
    for link in (
        paths.manifests / "planted",
        paths.manifests / "a" / "planted",
        *(paths.blobs / f"{number:02x}" for number in range(256) if f"{number:02x}" not in hexes),
    ):
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(outside, target_is_directory=True)
    (paths.manifests / "plain").mkdir()
    (paths.manifests / "plain" / "latest.json").symlink_to(outside / "latest.json")
    for digest in (entry(b"0").digest, entry(b"1").digest):
        for path in paths.ingested(digest):
            path.symlink_to(outside / "canary")


def refused(act: Callable[..., object], *args: object) -> None:
    """Whatever it says, it says it in an error of the tree or of the disk."""
    with contextlib.suppress(GemmaError, OSError):
        act(*args)


def through_the_store(store: Store, text: str) -> None:
    """Every method of the store that makes a path of what it is given."""
    for name in (lambda: ModelName.parse(text), lambda: ModelName((text,), text)):
        refused(lambda name=name: store.get(name()))
        refused(lambda name=name: store.delete(name()))
        refused(lambda name=name: store.copy(ModelName.parse("good"), name()))
        refused(lambda name=name: list(store.verify(name())))
    bad = FileEntry(text, ByteCount(3))
    for act in (
        lambda bad: store.partial(bad).close(),
        store.blobs.has, store.blobs.check, store.blobs.present,
        lambda bad: store.blobs.add(bad, [b"abc"]),
        lambda bad: store.adopt(bad, store._paths.root / "FORMAT"),
        lambda bad: store.missing([bad]),
        lambda bad: store.text(bad),
        lambda bad: store.blobs.entry(bad.digest),
        lambda bad: store.receive(bad.digest).abort(),
        lambda bad: store.blobs.read(bad.digest),
        lambda bad: store.blobs.remove(bad.digest),
        lambda bad: store.blobs.quarantine(bad.digest),
    ):  # fmt: skip
        refused(act, bad)


def through_a_manifest(store: Store, text: str) -> None:
    """A manifest with a right hash and hostile words in it is committed, or lies there."""
    good = manifest("good2", {"f.json": DATA})
    for bent in (
        msgspec.structs.replace(good, name=text),
        msgspec.structs.replace(good, target={text: entry(DATA)}),
        msgspec.structs.replace(good, target={"f.json": FileEntry(text, ByteCount(3))}),
        msgspec.structs.replace(good, drafter={text: FileEntry(text, ByteCount(3))}),
        msgspec.structs.replace(good, documents={text: entry(DATA)}),
        msgspec.structs.replace(good, tokenizer=text, template=text, reference=text, draft=text),
    ):
        refused(store.commit, bent)
        with contextlib.suppress(UnicodeEncodeError):
            store._paths.manifest(ModelName.parse("good")).write_bytes(encode_manifest(bent))
        store.all()
        refused(lambda: store.pair_files(store.get(ModelName.parse("good"))))
        refused(lambda: list(store.verify()))
        refused(lambda: store.gc(dry_run=False, min_age_s=0))
        refused(lambda: store.delete(ModelName.parse("nobody")))


def through_new_blobs(store: Store, number: int) -> None:
    """A good blob comes where somebody planted a link."""
    data = b"%d" % number
    refused(lambda: store.blobs.add(entry(data), [data]))
    with contextlib.suppress(GemmaError, OSError), store.partial(entry(data)) as partial:
        partial.write(0, data)
    refused(lambda: store.blobs.quarantine(entry(data).digest))
    refused(lambda: store.blobs.remove(entry(data).digest))


async def through_http(door: Served, text: str) -> set[str]:
    """Every route that takes a name or a digest; the codes of what was answered."""
    codes: set[str] = set()

    async def send(method: str, path: str, body: object, session=door.tcp) -> None:
        try:
            data = json.dumps(body).encode()
            head = {"Content-Type": "application/json"}
            async with session.request(method, path, data=data, headers=head) as answer:
                said = await answer.text()
                codes.update(re.findall(r'"code": ?"(\w+)"', said) or [str(answer.status)])
        except (ValueError, UnicodeError):
            return  # no client can send that

    calls: list[Awaitable[None]] = [
        send("POST", "/api/show", {"model": text}, door.unix),
        send("DELETE", "/api/delete", {"model": text}, door.unix),
        send("POST", "/api/copy", {"source": text, "destination": "x"}, door.unix),
        send("POST", "/api/copy", {"source": "good", "destination": text}, door.unix),
        send("POST", "/api/generate", {"model": text}),
        send("POST", "/api/chat", {"model": text, "messages": []}),
        send("POST", "/api/verify", {"model": text, "repair": False}, door.unix),
        send("DELETE", "/api/draft", {"model": text}, door.unix),
        send("POST", "/api/pull", {"model": text, "stream": False}),
        send("POST", "/api/create", {"model": text, "from": "good", "stream": False}),
        send("POST", "/api/create", {"model": "x", "from": text, "stream": False}),
        send("POST", "/api/create", {"model": "x", "files": {text: entry(DATA).digest}}),
        send("POST", "/api/create", {"model": "x", "files": {"f.gguf": text}}),
        send("POST", "/api/create", {"model": "x", "from": "good", "adapters": {text: text}}),
    ]
    for call in calls:
        await call
    for spelled in {text, text.replace("%", "%25").replace("/", "%2f")}:
        await send("POST", f"/api/blobs/{spelled}", {}, door.unix)
        await send("HEAD", f"/api/blobs/{spelled}", {}, door.unix)
    return codes


async def main(folder: Path, number: int) -> None:
    outside = folder / "outside"
    outside.mkdir()
    (outside / "canary").write_bytes(b"precious")
    (outside / "latest.json").write_bytes(encode_manifest(manifest("planted/latest", {})))
    codes: set[str] = set()
    async with served(folder, [], FakeNetwork()) as door:
        store = door.store
        put(store, "good", DATA)
        plant(store, outside)
        warm = ["warm", "..", entry(DATA).digest]  # what is imported late is imported now
        for text in warm:
            await through_http(door, text)
        watch = Watch(store._paths.root)
        watch.on = True
        for count, text in enumerate([*warm, *hostile_texts(number)]):
            through_the_store(store, text)
            through_a_manifest(store, text)
            through_new_blobs(store, count)
            codes |= await through_http(door, text)
        watch.on = False
    left = sorted(path.name for path in outside.iterdir())
    kept = (outside / "canary").read_bytes() == b"precious"
    report = {"outside": sorted(watch.outside), "seen": watch.seen, "left": left, "kept": kept}
    print(json.dumps({**report, "codes": sorted(codes)}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
