"""POST /api/generate and /api/chat: lease the pair, run the request, translate what comes back."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TypeVar, cast, get_args

import msgspec
from aiohttp import web

from gemmad import wire
from gemmad.api.errors import BadRequest, PromptTooLong, WillNotFit
from gemmad.core import Manifest
from gemmad.dialects.ollama import requests
from gemmad.dialects.ollama.options import read_options
from gemmad.dialects.ollama.replies import Record, Reply
from gemmad.dialects.request import GenerationRequest, Options
from gemmad.residency.loop import Lease
from gemmad.residency.resident import Wanted
from gemmad.residency.seen import Priority
from gemmad.server.bodies import CHAT_BYTES, read_json
from gemmad.server.counting import AnswerWatch
from gemmad.server.services import SERVICES, Services
from gemmad.server.streams import json_response, ndjson_together

T = TypeVar("T")
PRIORITY_HEADER = "Gemma-Priority"


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /api/generate."""
    body = await read_json(request, requests.GenerateBody, CHAT_BYTES)
    return await _answer(request, requests.generate_request(body), chat=False)


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /api/chat."""
    body = await read_json(request, requests.ChatBody, CHAT_BYTES)
    return await _answer(request, requests.chat_request(body), chat=True)


async def _answer(
    request: web.Request, wanted: GenerationRequest, *, chat: bool
) -> web.StreamResponse:
    services = request.app[SERVICES]
    manifest = services.store.get(wanted.model)
    _require_abilities(wanted, manifest)
    clock = services.clock
    reply = Reply(wanted.called, chat, clock, began_ns=clock.monotonic_ns())
    priority = _priority(request)
    generation = Generation(services, _with_defaults(wanted, manifest), manifest, reply, priority)
    if wanted.load_only:
        return json_response(await generation.only_load())
    if wanted.stream:
        return await ndjson_together(request, generation.records())
    return json_response(await generation.whole())


class _Outgrown(Exception):
    """A prompt did not fit into a context that was made smaller for want of memory."""

    def __init__(self, num_ctx: int, refusal: PromptTooLong) -> None:
        super().__init__(num_ctx)
        self.num_ctx = num_ctx
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Generation:
    """One request on its way through residency and the runner."""

    services: Services
    request: GenerationRequest
    manifest: Manifest
    reply: Reply
    priority: Priority = "interactive"

    async def only_load(self) -> Record:
        """The pair is loaded (or, with keep_alive 0, unloaded)."""
        if self.request.unload_only:
            await self.services.residency.unload(self.request.model)
            return self.reply.empty("unload")
        async with self._lease(self._wanted()) as lease:
            self.reply.load_ns = lease.load_ns
        return self.reply.empty("load")

    async def records(self) -> AsyncGenerator[list[Record], None]:
        """The records of a streamed answer, all that are there at a time.

        Raises:
            GemmaError: the pair could not be had, refused the request, or died.
        """
        async with contextlib.aclosing(self._events()) as events:
            async for told in events:
                yield [
                    self.reply.done(event)
                    if isinstance(event, wire.Done)
                    else self.reply.delta(event)
                    for event in told
                ]

    async def whole(self) -> Record:
        """The one record of an answer that is not streamed.

        Raises:
            GemmaError: the pair could not be had, refused the request, or died.
        """
        async with contextlib.aclosing(self._events()) as events:
            async for told in events:
                for event in told:
                    if isinstance(event, wire.Done):
                        return self.reply.whole(event)
                    self.reply.delta(event)
        raise AssertionError("an answer ends with its Done")

    async def _events(self) -> AsyncGenerator[list[wire.Delta | wire.Done], None]:
        """What comes of it; where its prompt needs the context that had no room, once more.

        Nothing was said before a runner refuses a prompt.
        """
        wanted = self._wanted()
        try:
            async with contextlib.aclosing(self._answered(wanted)) as answer:
                async for events in answer:
                    yield events
            return
        except _Outgrown as error:
            outgrown = error
        larger = replace(wanted, more_than=outgrown.num_ctx)
        try:
            async with contextlib.aclosing(self._answered(larger)) as answer:
                async for events in answer:
                    yield events
        except (_Outgrown, WillNotFit) as error:
            raise outgrown.refusal from error

    async def _answered(self, wanted: Wanted) -> AsyncGenerator[list[wire.Delta | wire.Done], None]:
        watch = AnswerWatch(self.services.counts, self.services.clock.monotonic_ns)
        async with self._lease(wanted) as lease:
            watch.granted()
            self.reply.load_ns = lease.load_ns
            answer = lease.generate(self._frame(lease))
            async with contextlib.aclosing(answer):
                try:
                    async for events in answer:
                        watch.saw(events)
                        yield events
                except PromptTooLong as refusal:
                    if wanted.exact or lease.num_ctx >= wanted.num_ctx:
                        raise
                    raise _Outgrown(lease.num_ctx, refusal) from refusal

    def _wanted(self) -> Wanted:
        options = self.request.options
        most = self.manifest.details.context_length or self.services.num_ctx
        num_ctx = min(options.num_ctx or self.services.num_ctx, most)  # as Ollama: clamped
        deterministic = _first(options.deterministic, self.services.deterministic)
        return Wanted(
            self.request.model.key,
            self.manifest,
            num_ctx,
            options.num_ctx is not None,
            quantize=_packing(options.quantize, self.services.quantize),
            draft_quantize=_packing(options.draft_quantize, None),
            deterministic=bool(deterministic),
            exact_weights=options.names_weights,
        )

    def _lease(self, wanted: Wanted) -> contextlib.AbstractAsyncContextManager[Lease]:
        return self.services.residency.lease(wanted, self.request.keep_alive_s, self.priority)

    def _frame(self, lease: Lease) -> wire.Generate:
        request = self.request
        draft = request.options.draft
        return wire.Generate(
            id=lease.new_id(),
            messages=request.messages,
            prompt=request.prompt,
            context=request.context,
            tools=request.tools,
            think=request.think,
            sampling=msgspec.convert(request.options.sampling, wire.Sampling),
            draft=self.services.draft if draft is None else draft,
        )


def _priority(request: web.Request) -> Priority:
    """As its header says, in every dialect.

    Raises:
        BadRequest: the header says something else.
    """
    told = request.headers.get(PRIORITY_HEADER, "interactive").strip().lower()
    for known in get_args(Priority):
        if told == known:
            return cast(Priority, known)
    raise BadRequest(
        f"{PRIORITY_HEADER} is {told[:40]!r}.", fix=f"Use {' or '.join(get_args(Priority))}."
    )


def _with_defaults(request: GenerationRequest, manifest: Manifest) -> GenerationRequest:
    """What the request leaves out comes from the model: parameters and system message."""
    own, given = read_options(manifest.parameters), request.options
    options = Options(
        sampling=own.sampling | given.sampling,
        num_ctx=_first(given.num_ctx, own.num_ctx),
        draft=_first(given.draft, own.draft),
        quantize=_first(given.quantize, own.quantize),
        draft_quantize=_first(given.draft_quantize, own.draft_quantize),
        deterministic=_first(given.deterministic, own.deterministic),
    )
    return replace(request, options=options, messages=_messages(request, manifest))


def _messages(request: GenerationRequest, manifest: Manifest) -> tuple[wire.Message, ...]:
    """The conversation behind the model's system message and its own first turns.

    An answer that goes on from `context` has these behind it already.
    """
    messages = request.messages
    if not messages:
        return ()
    system, rest = messages[:1], messages[1:]
    if messages[0].role not in ("system", "developer"):
        own = (wire.Message(role="system", content=manifest.system),) if manifest.system else ()
        system, rest = own, messages
    if request.context:
        return (*system, *rest)
    turns = (wire.Message(role=turn.role, content=turn.content) for turn in manifest.messages)
    return (*system, *turns, *rest)


def _packing(named: str | None, own: wire.Quantize | None) -> wire.Quantize | None:
    """How weights are packed: as named, where `none` is a word, else as is our own way."""
    if named is None:
        return own
    return None if named == "none" else cast(wire.Quantize, named)


def _first(given: T | None, own: T | None) -> T | None:
    return own if given is None else given


def _require_abilities(request: GenerationRequest, manifest: Manifest) -> None:
    for ability, needed in (("thinking", request.think), ("tools", bool(request.tools))):
        if needed and ability not in manifest.details.capabilities:
            raise BadRequest(f"model '{request.called}' does not support {ability}.")
