"""Plans, a network and an inspection for tests of pulls, around a real store."""

import asyncio
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from gemmad.core import ByteCount, Details, Digest, FileEntry, Origin, digest_of
from gemmad.inspection.inspected import Inspected
from gemmad.pulls.pulls import Means, Pulls
from gemmad.sources.half import Bytes, Content, Half, Kind, Local, Remote, SourceFile
from gemmad.sources.plan import Plan
from gemmad.sources.reference import Reference
from gemmad.store.store import Store

CHUNK = 1 << 12
DETAILS = Details(
    family="gemma4", parameter_size="1K", quantization_level="BF16", context_length=8192,
    embedding_length=256, capabilities=("completion", "tools", "thinking"),
)  # fmt: skip
FOUND = Inspected(
    details=DETAILS,
    info={"general.architecture": "gemma4"},
    tokenizer=Digest("sha256:" + "1" * 64),
    parameters={"temperature": 0.5},
    drafter_parameter_size="50",
)


def entry(data: bytes) -> FileEntry:
    """The entry of a file with this content."""
    return FileEntry(digest_of(data), ByteCount(len(data)))


def remote(data: bytes, kind: Kind = "target", name: str = "model.safetensors") -> SourceFile:
    """A file that `FakeNetwork` serves once it was told its content."""
    return SourceFile(kind, name, entry(data), Remote(f"fake://{digest_of(data)}"))


def in_hand(data: bytes, kind: Kind = "target", name: str = "config.json") -> SourceFile:
    """A small file that came with the plan."""
    return SourceFile(kind, name, entry(data), Content(data))


def local(path: Path, kind: Kind = "target") -> SourceFile:
    """A file of this machine."""
    return SourceFile(kind, path.name, entry(path.read_bytes()), Local(path))


def plan(*files: SourceFile, **fields: object) -> Plan:
    """A plan of these files."""
    return Plan(files, Origin("hf.co/o/r", "c" * 40), **fields)  # type: ignore[arg-type]


class FakeNetwork:
    """Fetches into real partials, chunk by chunk; stops at a closed gate, counts what it sent."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {f"fake://{digest_of(data)}": data for data in contents}
        self.gate = asyncio.Event()
        self.gate.set()
        self.stop_after: int | None = None  # chunks; then the gate closes
        self.sent: list[tuple[str, int]] = []  # url and chunk
        self.running: set[str] = set()
        self.together = 0  # the most files at one time
        self.waits = asyncio.Event()  # a fetch is at the closed gate

    async def fetch(self, file: Remote, partial, on_progress) -> None:
        self.running.add(file.url)
        self.together = max(self.together, len(self.running))
        try:
            for chunk in partial.missing():
                await self._pass()
                self._send(file.url, partial, chunk)
                on_progress(partial.completed)
            partial.digest_ahead()
            partial.commit()
        finally:
            self.running.discard(file.url)

    async def _pass(self) -> None:
        if self.stop_after is not None and len(self.sent) >= self.stop_after:
            self.gate.clear()
        if not self.gate.is_set():
            self.waits.set()
        await self.gate.wait()
        await asyncio.sleep(0)

    def _send(self, url: str, partial, chunk: int) -> None:
        begin = chunk * partial.chunk_bytes
        data = self.contents[url][begin : begin + partial.chunk_bytes]
        partial.write(begin, memoryview(data))
        partial.finish(chunk, zlib.crc32(data))
        self.sent.append((url, chunk))


async def looked_into(_files) -> Inspected:
    """An inspection that finds a sound pair."""
    return FOUND


def make_pulls(store: Store, network: FakeNetwork, **means: object) -> Pulls:
    """Pulls around these."""
    return Pulls(
        Means(**({"store": store, "fetch": network.fetch, "inspect": looked_into} | means))
    )


@dataclass
class FakeSource:
    """Knows references of one scheme, or of one name; counts what it is asked."""

    halves: dict[str, Half]
    siblings: dict[str, Half] = field(default_factory=dict)  # drafters of targets, by reference
    asked: list[str] = field(default_factory=list)

    def knows(self, reference: Reference) -> bool:
        return reference.scheme == "hub" or str(reference) in self.halves

    def target(self, reference: Reference) -> Half:
        self.asked.append(str(reference))
        return self.halves[str(reference)]

    def drafter(self, reference: Reference) -> Half:
        return self.target(reference)

    def pair_of(self, reference: Reference, _target: Half) -> Half | None:
        return self.siblings.get(str(reference))


def half(name: str, *files: SourceFile, revision: str = "a" * 40, **fields: object) -> Half:
    """A half from the place `name`."""
    bound: tuple[Bytes | SourceFile, ...] = files
    return Half(bound, Origin(name, revision), **fields)  # type: ignore[arg-type]
