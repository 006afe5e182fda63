"""Answers requests with a loaded pair: prompts are written in one thread, tokens made in another.

    main thread      add(), cancel(), do()    registers what is wanted, never waits
    writing thread   run_writer()             request -> prompt -> engine
    engine thread    run_engine()             engine -> session -> frames, and chores between steps

A step returns with the next round under way, so texts are detokenized, parsed and sent while the
device works.
`_open` is shared: the main thread enters a request, the thread that answers it takes it out.
"""

import logging
import queue
import threading
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, Protocol, assert_never

from tokenizers import Tokenizer

from gemmad.api.errors import GemmaError
from gemmad.wire import (
    Done,
    DraftStats,
    FromRunner,
    Generate,
    Loaded,
    RequestRefused,
    Sampling,
)
from gemmarunner.chat import Prompt
from gemmarunner.detokenize import Vocabulary
from gemmarunner.engine import request as engine_request
from gemmarunner.engine.events import EngineEvent, EngineRequest, Failed, Finished, Tokens
from gemmarunner.session import Session
from gemmarunner.tending import Chore, PairMemory, TendedEngine, Tending

_log = logging.getLogger(__name__)
_TOGETHER_LETTERS = 1 << 20  # of prompts written together; what they take doubles meanwhile


class EnginePort(TendedEngine, Protocol):
    """What is needed of the engine; `add` and `cancel` may come from any thread."""

    @property
    def has_work(self) -> bool: ...
    def add(self, request: EngineRequest) -> None: ...
    def cancel(self, id: int) -> None: ...
    def step(self) -> list[EngineEvent]: ...
    def depth_state(self) -> dict[str, object]: ...


class Writer(Protocol):
    """Makes prompts of requests, in order and one by one; a GemmaError is for the user."""

    def write_all(self, requests: Sequence[Generate]) -> Iterator[Prompt | Exception]: ...


class Send(Protocol):
    """Puts frames into the channel, in order; any thread may call it."""

    def __call__(self, *frames: FromRunner) -> None: ...


class Served(NamedTuple):
    """A pair that is ready, and what the daemon is told about it."""

    engine: EnginePort
    writer: Writer
    tokenizer: Tokenizer
    hidden_ids: Set[int]  # never shown: end of text, padding
    loaded: Loaded
    memory: PairMemory


@dataclass(slots=True)
class _Open:
    """A request that has no answer yet."""

    request: Generate
    is_cancelled: bool = False  # written by the main thread, read by the writing thread
    session: Session | None = None  # written by the writing thread before the engine knows of it


class Serving:
    """The requests of one pair."""

    def __init__(self, served: Served, send: Send) -> None:
        self._served = served
        self._engine = served.engine
        self._vocabulary = Vocabulary(served.tokenizer, served.hidden_ids)
        self._send = send
        self._open: dict[int, _Open] = {}
        self._unwritten: queue.SimpleQueue[_Open] = queue.SimpleQueue()
        self._work = threading.Event()  # set by whoever gives the engine something to do
        self._tending = Tending(served.engine, served.memory, send, self._work.set)

    def add(self, request: Generate) -> None:
        """`request` will be answered by a Done or a RequestRefused."""
        entry = self._open[request.id] = _Open(request)
        self._unwritten.put(entry)

    def cancel(self, id: int) -> None:
        """Request `id` ends within one round; nothing happens when it has ended."""
        if entry := self._open.get(id):
            entry.is_cancelled = True
            self._engine.cancel(id)
            self._work.set()

    def do(self, chore: Chore) -> None:
        """`chore` is done between two steps of the engine, and answered."""
        self._tending.put(chore)

    def run_writer(self) -> NoReturn:
        """Writes prompts for ever, in the order the requests came.

        Of many that come at once the first is written alone, so that the engine has it soon, the
        others together, twice as many each time.
        """
        most = 1
        while True:
            entries = self._wanted(most)
            most = 2 * most if not self._unwritten.empty() else 1
            prompts = self._served.writer.write_all([entry.request for entry in entries])
            for entry, prompt in zip(entries, prompts, strict=True):
                self._enter(entry, prompt)

    def run_engine(self) -> NoReturn:
        """Steps the engine for ever, and sleeps while it has nothing to do."""
        while True:
            if not self._engine.has_work:
                self._work.wait()
            self._work.clear()
            self._tending.run()
            frames = [frame for event in self._engine.step() for frame in self._answer(event)]
            if frames:  # of all sequences at once: the daemon is woken once a round
                self._send(*frames)

    def _wanted(self, most: int) -> list[_Open]:
        """The next requests that wait for a prompt, at least one and not too long together."""
        found = [self._unwritten.get()]
        letters = _letters(found[0].request)
        while len(found) < most and letters < _TOGETHER_LETTERS and not self._unwritten.empty():
            found.append(self._unwritten.get())  # nobody else takes
            letters += _letters(found[-1].request)
        return found

    def _enter(self, entry: _Open, prompt: Prompt | Exception) -> None:
        request = entry.request
        try:
            if isinstance(prompt, Exception):
                raise prompt
            entry.session = Session(request, prompt, self._vocabulary)
            self._engine.add(
                EngineRequest(
                    id=request.id,
                    tokens=prompt.tokens,
                    sampling=engine_sampling(request.sampling),
                    draft=request.draft,
                )
            )
        except GemmaError as error:
            self._send(self._refused(request.id, error))
        except Exception as error:  # one odd request must not end the others' runner
            _log.exception("request %d could not be read", request.id)
            told = GemmaError(f"The request could not be read: {error!r}.")
            self._send(self._refused(request.id, told))
        if entry.is_cancelled:  # before the engine knew of it
            self._engine.cancel(request.id)
        self._work.set()

    def _answer(self, event: EngineEvent) -> Iterator[FromRunner]:
        entry = self._open[event.id]
        assert entry.session is not None  # it was written before the engine got the request
        match event:
            case Tokens():
                yield from self._piece(entry.session, event)
            case Finished():
                yield from self._end(entry.session, event)
            case Failed():
                _log.error("request %d failed", event.id, exc_info=event.error)
                yield self._refused(
                    event.id,
                    GemmaError(
                        f"The model failed on this request: {event.error}.",
                        fix="A shorter prompt or a smaller num_ctx needs less memory.",
                    ),
                )
            case _:
                assert_never(event)

    def _piece(self, session: Session, event: Tokens) -> Iterator[FromRunner]:
        if session.stopped:
            return
        if delta := session.on_tokens(event.tokens):
            yield delta
        if session.stopped:
            self._engine.cancel(event.id)

    def _end(self, session: Session, event: Finished) -> Iterator[FromRunner]:
        if delta := session.close():
            yield delta
        del self._open[event.id]
        yield Done(
            id=event.id,
            reason="stop" if session.stopped else event.reason,
            prompt_tokens=event.prompt_tokens,
            prompt_ns=event.prompt_ns,
            eval_tokens=event.eval_tokens,
            eval_ns=event.eval_ns,
            draft=wire_stats(event.draft),
            positions=event.draft.positions,
            context=tuple(session.context),
            depth_state=self._engine.depth_state(),
        )

    def _refused(self, id: int, error: GemmaError) -> RequestRefused:
        del self._open[id]
        return RequestRefused(id=id, code=error.code, message=error.message, fix=error.fix)


def _letters(request: Generate) -> int:
    return len(request.prompt or "") + sum(len(message.content) for message in request.messages)


def engine_sampling(sampling: Sampling) -> engine_request.Sampling:
    """A request's sampling as the engine, which knows no frames, reads it."""
    return engine_request.Sampling(
        **{name: getattr(sampling, name) for name in sampling.__struct_fields__}
    )


def wire_stats(stats: engine_request.DraftStats) -> DraftStats:
    """The engine's figures as a frame carries them."""
    return DraftStats(**{name: getattr(stats, name) for name in DraftStats.__struct_fields__})
