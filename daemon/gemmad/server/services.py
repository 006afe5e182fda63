"""What the handlers work with, built once by the composition root."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from gemmad.dialects.ollama.replies import Clock
from gemmad.pulls import Pulls
from gemmad.residency.loop import Residency
from gemmad.store.store import Store
from gemmad.wire import DraftMode, Quantize


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms behind the door, and the settings the handlers need."""

    store: Store
    pulls: Pulls
    residency: Residency
    clock: Clock
    version: str
    num_ctx: int
    draft: DraftMode
    quantize: Quantize | None = None
    deterministic: bool = False


SERVICES = web.AppKey("services", Services)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
