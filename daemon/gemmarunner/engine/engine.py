"""Runs requests through a pair: each step is one prefill chunk or one round of one sequence."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

import torch

from gemmad.api.errors import BadRequest, PromptTooLong
from gemmad.wire import DraftStats
from gemmarunner.engine.controller import DepthController
from gemmarunner.engine.events import (
    EngineEvent,
    EngineRequest,
    Failed,
    Finished,
    Reason,
    Tokens,
)
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import Drafter, Target
from gemmarunner.engine.propose import DraftKind
from gemmarunner.engine.round import Pair, run_round
from gemmarunner.engine.sampling import Sampler
from gemmarunner.engine.sequence import Sequence, room_for
from gemmarunner.engine.slot import Slot

_log = logging.getLogger(__name__)
_NO_DRAFTS = DraftStats(
    depth=0, rounds=0, drafted=0, accepted=0, per_position=(), tokens_per_round=0.0
)


class Engine:
    """A pair, its slots, and the requests in them and before them.

    One thread calls `step`. `add` and `cancel` may be called from any: they only put a note into
    the inbox (a deque, whose ends are safe to share), which `step` reads.
    """

    def __init__(
        self,
        target: Target,
        drafter: Drafter | None,
        *,
        num_ctx: int,
        slots: int = 1,
        max_depth: int = 8,
        depth_state: Mapping[str, object] | None = None,
        max_rows: int = 256,
        eos_ids: frozenset[int],
        suppress_ids: tuple[int, ...] = (),
        draft_kind: DraftKind = DraftKind.COUPLED,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._pair = Pair(target, drafter, draft_kind)
        self._num_ctx = num_ctx
        self._max_rows = max_rows
        self._eos_ids = eos_ids
        self._suppress_ids = suppress_ids
        self._clock_ns = clock_ns
        self._max_depth = max_depth if drafter is not None else 0
        self._controller = _controller(self._max_depth, depth_state)
        rows = max(max_rows, max_depth + 1)
        self._slots = [
            Slot(KVCache(target.config, num_ctx, rows, target.device, target.dtype))
            for _ in range(slots)
        ]
        self.kv_bytes = sum(slot.cache.nbytes for slot in self._slots)
        self._inbox: deque[EngineRequest | int] = deque()  # an int cancels the request of that id
        self._waiting: deque[EngineRequest] = deque()
        self._turn = 0  # slot whose step comes next

    def add(self, request: EngineRequest) -> None:
        """Queues `request` behind all earlier ones; thread-safe.

        Raises:
            PromptTooLong: the prompt leaves no room for one token in the context.
            BadRequest: the prompt is empty or holds an id that is no token.
        """
        if len(request.tokens) + 1 > self._num_ctx:
            raise PromptTooLong(
                f"The prompt has {len(request.tokens)} tokens, but the context holds "
                f"{self._num_ctx} and the answer needs at least one.",
                fix="Shorten the prompt or load the model with a larger num_ctx.",
            )
        if not request.tokens:
            raise BadRequest("The prompt has no tokens.", fix="Send some text.")
        vocab = self._pair.target.config.vocab_size
        if min(request.tokens) < 0 or max(request.tokens) >= vocab:
            raise BadRequest(f"The prompt holds a token id outside 0 to {vocab - 1}.")
        self._inbox.append(request)

    def cancel(self, id: int) -> None:
        """Ends request `id` before its next round or prefill chunk; thread-safe.

        It is answered by Finished with reason "cancel", unless it has finished already.
        """
        self._inbox.append(id)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something; thread-safe."""
        return bool(self._inbox or self._waiting or any(slot.sequence for slot in self._slots))

    def depth_state(self) -> dict[str, object]:
        """What was learned about depths, for the next engine of this pair."""
        return self._controller.state()

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Reads the inbox, fills free slots, and moves one sequence on; returns what happened."""
        events = self._read_inbox()
        events += self._fill_slots()
        slot = self._next_slot()
        if slot is None:
            return events
        try:
            return events + self._advance(slot)
        except RuntimeError as error:  # torch's own errors, out of memory among them
            return [*events, self._fail(slot, error)]

    def _read_inbox(self) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        while self._inbox:
            note = self._inbox.popleft()
            if isinstance(note, EngineRequest):
                self._waiting.append(note)
            else:
                events += self._cancelled(note)
        return events

    def _cancelled(self, id: int) -> list[EngineEvent]:
        for request in self._waiting:
            if request.id == id:
                self._waiting.remove(request)
                return [_unstarted(request, "cancel")]
        for slot in self._slots:
            if slot.sequence is not None and slot.sequence.id == id:
                finished = slot.sequence.finished("cancel", self._clock_ns())
                slot.end()
                return [finished]
        return []

    def _fill_slots(self) -> list[EngineEvent]:
        """Starts waiting requests, first come first served, each where most can be used again."""
        events: list[EngineEvent] = []
        while self._waiting and any(slot.sequence is None for slot in self._slots):
            request = self._waiting.popleft()
            if room_for(request, self._num_ctx) == 0:
                events.append(_unstarted(request, "length"))
                continue
            free = (slot for slot in self._slots if slot.sequence is None)
            best = max(free, key=lambda s: (s.reusable(request.tokens), -s.cache.length))
            best.begin(self._sequence(request))
        return events

    def _sequence(self, request: EngineRequest) -> Sequence:
        target = self._pair.target
        return Sequence(
            id=request.id,
            tokens=list(request.tokens),
            prompt_tokens=len(request.tokens),
            sampler=Sampler(
                request.sampling,
                vocab=target.config.vocab_size,
                suppress_ids=self._suppress_ids,
                device=target.device,
            ),
            draft=request.draft,
            room=room_for(request, self._num_ctx),
            started_ns=self._clock_ns(),
        )

    def _next_slot(self) -> Slot | None:
        """The busy slot whose turn it is."""
        count = len(self._slots)
        for index in range(self._turn, self._turn + count):
            slot = self._slots[index % count]
            if slot.sequence is not None:
                self._turn = (index + 1) % count
                return slot
        return None

    def _advance(self, slot: Slot) -> list[EngineEvent]:
        sequence = slot.sequence
        assert sequence is not None
        if sequence.hidden is None:
            visible = self._prefill(sequence, slot.cache)
        else:
            visible = self._round(sequence, sequence.hidden, slot.cache)
        events: list[EngineEvent] = [Tokens(sequence.id, tuple(visible))] if visible else []
        if sequence.reason is not None:
            events.append(sequence.finished(sequence.reason, self._clock_ns()))
            slot.end()
        return events

    def _prefill(self, sequence: Sequence, cache: KVCache) -> list[int]:
        """Reads one more chunk of the prompt; its last row chooses the first token."""
        target = self._pair.target
        chunk = sequence.tokens[cache.length : cache.length + self._max_rows]
        rows = torch.tensor(chunk, dtype=torch.int64, device=target.device)
        hidden = target.forward(rows, cache, keep=1)
        if cache.length < sequence.prompt_tokens:
            return []
        sampler = sequence.sampler
        history = sampler.history(sequence.tokens)
        chosen = sampler.choose(target.logits(hidden), history, len(sequence.tokens))
        visible = sequence.commit(chosen.tolist(), self._eos_ids)
        sequence.hidden = hidden
        sequence.answered_ns = self._clock_ns()
        return visible

    def _round(self, sequence: Sequence, hidden: torch.Tensor, cache: KVCache) -> list[int]:
        """Drafts, verifies and learns from it."""
        started = self._clock_ns()
        depth = self._depth(sequence)
        result = run_round(self._pair, cache, sequence.sampler, sequence.tokens, hidden, depth)
        sequence.hidden = result.hidden
        visible = sequence.commit(result.tokens, self._eos_ids)
        stopped = sequence.reason == "stop"
        reached = min(depth, len(visible) + stopped)  # drafts after the end of the text don't count
        outcomes = [index + 1 < len(result.tokens) for index in range(reached)]
        seconds = (self._clock_ns() - started) / 1e9
        sequence.ledger.record(
            depth,
            drafted=reached if stopped else depth,
            outcomes=outcomes,
            added=len(visible) + stopped,
        )
        self._controller.record(sequence.regime, depth, outcomes, seconds)
        return visible

    def _depth(self, sequence: Sequence) -> int:
        """How many tokens to draft: a round must not outgrow the answer's room or the context."""
        limit = min(self._max_depth, sequence.room - 1)
        if sequence.draft == "off" or limit <= 0:
            return 0
        if sequence.draft == "auto":
            return self._controller.choose(sequence.regime, limit)
        return max(0, min(sequence.draft, limit))

    def _fail(self, slot: Slot, error: Exception) -> Failed:
        """Drops the sequence and all that its cache holds; nothing of it can be trusted."""
        assert slot.sequence is not None
        failed = Failed(slot.sequence.id, error)
        slot.clear()
        return failed


def _unstarted(request: EngineRequest, reason: Reason) -> Finished:
    """The answer to a request that never had a slot."""
    return Finished(request.id, reason, len(request.tokens), 0, 0, 0, _NO_DRAFTS)


def _controller(max_depth: int, state: Mapping[str, object] | None) -> DepthController:
    controller = DepthController(max_depth)
    if state is not None:
        try:
            controller.restore(state)
        except ValueError as error:  # learned anew within some rounds; no reason to refuse a load
            _log.warning("starting without what was learned about draft depths: %s", error)
    return controller
