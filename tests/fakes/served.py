"""The real application on both of its doors, around a real store and fakes of what is outside."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from gemmad.api.modelfile import parse
from gemmad.core import ByteCount, ModelName
from gemmad.dialects.ollama.replies import Clock
from gemmad.recipes.places import Places
from gemmad.recipes.recipes import Recipes
from gemmad.server.app import create_app
from gemmad.server.services import Services
from gemmad.sources.catalogue import Offer, Sizes
from gemmad.sources.directory import DirectorySource
from gemmad.sources.half import Source
from gemmad.sources.ollama_store import OllamaStore
from gemmad.store.store import Store
from gemmad.wire import Load
from tests.fakes.machines import machine_of
from tests.fakes.played_residency import played_residency
from tests.fakes.pull_scenes import CHUNK, FakeNetwork, make_pulls
from tests.fakes.residency_fakes import InProcessRunner

GIB = 1 << 30
E4B = Offer(
    ModelName.parse("gemma4:e4b"), "Google's E4B.", "Apache-2.0",
    Sizes(ByteCount(16 * GIB), ByteCount(GIB), ByteCount(16 * GIB)),
)  # fmt: skip


@dataclass
class Served:
    """The rooms behind the door, and clients of both doors."""

    services: Services
    network: FakeNetwork
    runners: list[InProcessRunner]
    tcp: aiohttp.ClientSession
    unix: aiohttp.ClientSession

    @property
    def store(self) -> Store:
        return self.services.store

    async def ask(self, path: str, body: object, session: aiohttp.ClientSession | None = None):
        """Status and records of a POST over the Unix socket, or over `session`."""
        async with (session or self.unix).post(path, json=body) as answer:
            lines = (await answer.read()).splitlines()
            return answer.status, [decoded(line) for line in lines]


def decoded(line: bytes) -> dict:
    """One record."""
    return json.loads(line)


@contextlib.asynccontextmanager
async def served(
    root: Path,
    sources: list[Source],
    network: FakeNetwork,
    catalogue: Mapping[str, str] = MappingProxyType({}),
    **services: object,
) -> AsyncIterator[Served]:
    """The application serves while the block lasts."""
    store = Store(root / "store", chunk_bytes=CHUNK)
    runners: list[InProcessRunner] = []

    async def start(load, *, name, on_progress):
        runners.append(InProcessRunner(load, name))
        return runners[-1]

    def prepare(wanted, _fit) -> Load:
        return Load(files=store.pair_files(wanted.manifest), draft_quantize=wanted.draft_quantize)

    residency = played_residency(root, start, prepare)
    pulls = make_pulls(store, network, grace_s=0.05)

    def find(name):
        text = catalogue.get(str(name.key))
        return parse(text) if text else None

    places = Places([*sources, DirectorySource()], find, store)
    clock = Clock(lambda: 0, lambda: 1, lambda: "call_1")
    built = replace(
        Services(store, pulls, Recipes(places), residency, clock, "1", 4096, "auto"),
        **(
            {
                "offers": lambda: [E4B],
                "machine": lambda: machine_of(64 * GIB, 24 * GIB),
                "ollama": lambda path: OllamaStore(path or root / "no-ollama"),
            }
            | services
        ),
    )
    residency.start()
    app = create_app(built)
    server = TestServer(app, handler_cancellation=True)
    await server.start_server()
    assert isinstance(server.runner, web.AppRunner)
    socket = root / "s"
    await web.UnixSite(server.runner, socket).start()
    connector = aiohttp.UnixConnector(str(socket))
    async with (
        aiohttp.ClientSession(server.make_url("/")) as tcp,
        aiohttp.ClientSession("http://gemmad", connector=connector) as unix,
    ):
        yield Served(built, network, runners, tcp, unix)
    await pulls.close()
    await server.close()
    await residency.close()
