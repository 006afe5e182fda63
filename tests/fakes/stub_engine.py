"""An engine without a model, and what a runner needs around it: for tests of the frames."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from gemmad.api.errors import BadRequest
from gemmad.wire import Generate, Loaded, Measured
from gemmarunner.chat import Prompt
from gemmarunner.engine.events import EngineEvent, EngineRequest, Finished, Tokens
from gemmarunner.engine.request import DraftStats
from gemmarunner.serving import Served
from gemmarunner.tending import LoadedDrafter
from tests.fakes.tiny_text import tiny_tokenizer

TOKENS = tiny_tokenizer()
STATS = DraftStats(
    depth=2, rounds=1, drafted=2, accepted=1, per_position=(0.5,), tokens_per_round=2
)
LOADED = Loaded(
    device="cpu", dtype="float32", target_bytes=1, drafter_bytes=0, kv_bytes=1, num_ctx=64,
    load_ns=1, drafter=False,
)  # fmt: skip


class StubEngine:
    """Answers a prompt with the text after its `=`, a token a step; `=` alone never ends."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[EngineRequest | int] = queue.SimpleQueue()
        self.running: dict[int, list[int] | None] = {}
        self.drafts = True
        self.prefix_bytes = 30
        self.later: list[Callable[[], None]] = []  # what the next step tells

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.later) or not self.inbox.empty()

    def add(self, request: EngineRequest) -> None:
        if not request.tokens:
            raise BadRequest("The prompt has no tokens.")
        self.inbox.put(request)

    def cancel(self, id: int) -> None:
        self.inbox.put(id)

    def depth_state(self) -> dict[str, object]:
        return {"learned": 1}

    def reclaim(self, nbytes: int) -> int:
        return min(nbytes, 1000)

    def detach(self, done: Callable[[int], None]) -> None:
        freed, self.drafts = (100 if self.drafts else 0), False
        self.later.append(lambda: done(freed))

    def attach(self, drafter: object, done: Callable[[Exception | None], None]) -> None:
        error = drafter if isinstance(drafter, Exception) else None
        self.drafts = error is None
        self.later.append(lambda: done(error))

    def step(self) -> list[EngineEvent]:
        while self.later:
            self.later.pop(0)()
        while not self.inbox.empty():
            note = self.inbox.get()
            if isinstance(note, EngineRequest):
                answer = TOKENS.decode(note.tokens, skip_special_tokens=False).partition("=")[2]
                ids = TOKENS.encode(answer, add_special_tokens=False).ids if answer else None
                self.running[note.id] = ids
            elif note in self.running:
                del self.running[note]
                return [self.finished(note, "cancel")]
        for id, rest in list(self.running.items()):
            if rest is None:
                time.sleep(0.001)
                return [Tokens(id, (400,))]
            if rest:
                return [Tokens(id, (rest.pop(0),))]
            del self.running[id]
            return [self.finished(id, "stop")]
        return []

    def finished(self, id: int, reason: str) -> Finished:
        return Finished(id, reason, 3, 10, 5, 20, STATS)  # type: ignore[arg-type]


class PlainWriter:
    """A prompt is the last message as it is; `bad` and `odd` fail in two ways."""

    def write_all(self, requests: Sequence[Generate]) -> Iterator[Prompt | Exception]:
        for request in requests:
            try:
                yield self.write(request)
            except Exception as error:
                yield error

    def write(self, request: Generate) -> Prompt:
        text = request.prompt or "".join(f"={m.content}" for m in request.messages)
        if text == "bad":
            raise BadRequest("No.", fix="Say yes.")
        if text == "odd":
            raise RuntimeError("surprise")
        return Prompt(TOKENS.encode(text, add_special_tokens=False).ids, text)


class StubMemory:
    """A drafter of 100 bytes; loading it waits for `gate`, and fails with `error`, if there is."""

    def __init__(self) -> None:
        self.drafter_bytes = 100
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.refused: Exception | None = None  # by the engine, after it was loaded

    def load_drafter(self) -> LoadedDrafter:
        self.gate.wait(20)
        if self.error:
            raise self.error
        return LoadedDrafter(self.refused or "drafter", 100)

    def drafter_is(self, nbytes: int) -> None:
        self.drafter_bytes = nbytes

    def measure(self, prefix_bytes: int) -> Measured:
        return Measured(
            device_bytes=0, host_bytes=500, target_bytes=1, drafter_bytes=self.drafter_bytes,
            kv_bytes=1, prefix_bytes=prefix_bytes, peak_device_bytes=0,
        )  # fmt: skip


def stub_served() -> Served:
    """A pair that is ready, made of stubs."""
    hidden = frozenset((1, 106, 50))
    return Served(StubEngine(), PlainWriter(), TOKENS, hidden, LOADED, StubMemory())
