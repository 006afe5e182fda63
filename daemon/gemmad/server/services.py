"""What the handlers work with, built once by the composition root."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from aiohttp import web

from gemmad.dialects.ollama.replies import Clock
from gemmad.memory.probe import MachineProbe
from gemmad.memory.readings import Machine
from gemmad.pulls.pulls import Pulls
from gemmad.recipes.recipes import Recipes
from gemmad.residency.loop import Residency
from gemmad.server.counting import Counts
from gemmad.server.listening import Listeners
from gemmad.sources.catalogue import Offer
from gemmad.sources.half import Source
from gemmad.store.store import Store
from gemmad.wire import DraftMode, Quantize


class OtherStore(Source, Protocol):
    """Another program's store of models on this machine."""

    def names(self) -> list[str]:
        """What it has."""
        ...


def _nothing_to_import(_path: Path | None) -> OtherStore:
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms behind the door, and the settings the handlers need."""

    store: Store
    pulls: Pulls
    recipes: Recipes
    residency: Residency
    clock: Clock
    version: str
    num_ctx: int
    draft: DraftMode
    quantize: Quantize | None = None
    deterministic: bool = False
    offers: Callable[[], Sequence[Offer]] = tuple  # what the catalogue has; blocks
    search: Callable[[str], Sequence[Offer]] = lambda _: ()  # what the hub finds; blocks
    ollama: Callable[[Path | None], OtherStore] = _nothing_to_import  # at a path, or its own
    machine: Callable[[], Machine] = field(default_factory=lambda: MachineProbe().read)  # blocks
    exporter: Sequence[str] = ()  # the command that writes a pair for other programs
    events: Listeners = field(default_factory=Listeners)  # of what residency does
    counts: Counts = field(default_factory=Counts)
    kernels: Callable[[], str] = str  # what the runner's own library has for this CPU; blocks
    places: dict[str, str] = field(default_factory=dict)  # where things lie, for a person


SERVICES = web.AppKey("services", Services)
