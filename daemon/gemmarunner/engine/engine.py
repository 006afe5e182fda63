"""Runs requests through a pair: each step lands a round, launches the next and reads a chunk."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from gemmarunner.engine.admission import check, room_for
from gemmarunner.engine.controller import DepthController
from gemmarunner.engine.drafter import DrafterSwitch
from gemmarunner.engine.events import (
    EngineEvent,
    EngineRequest,
    Failed,
    Finished,
    Reason,
    Tokens,
)
from gemmarunner.engine.flight import Flight, Landing, commit, planned_depths, plans
from gemmarunner.engine.ports import Backend
from gemmarunner.engine.prefix import PrefixCache
from gemmarunner.engine.request import DraftStats
from gemmarunner.engine.sampling import Sampler
from gemmarunner.engine.sequence import Sequence
from gemmarunner.engine.slot import Slot

_log = logging.getLogger(__name__)
# Rows of a prompt read between two rounds while others decode: they wait no longer than for these.
CHUNK_BESIDE_ROUNDS: Final = 512
_LOST_TEXT = 8  # a held token that is thrown away counts as an eighth of one read again
_DEVICE_ERRORS = (RuntimeError, MemoryError)  # torch's own, out of memory among them
_NO_DRAFTS = DraftStats(
    depth=0, rounds=0, drafted=0, accepted=0, per_position=(), tokens_per_round=0.0
)


class Engine:
    """A pair, its slots, and the requests in them and before them.

    One thread calls `step`. `add` and `cancel` may be called from any: they only put a note into
    the inbox (a deque, whose ends are safe to share), which `step` reads.

    A step waits for the round in flight, gives its tokens to their sequences, and launches the next
    round before it returns, so that its caller handles the events while the device works. Where
    nothing but rounds of the same sequences is to be done, the next one is launched even before the
    wait, behind the one in flight: it is lost when a text ends meanwhile.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        eos_ids: frozenset[int],
        suppress_ids: tuple[int, ...] = (),
        depth_state: Mapping[str, object] | None = None,
        prefix_bytes: int | None = None,  # None: as much as two slots; 0: no prompt is kept
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._backend = backend
        self._eos_ids = eos_ids
        self._suppress_ids = suppress_ids
        self._clock_ns = clock_ns
        self._controller = _controller(backend.max_depth, depth_state)
        self._slots = [Slot(backend, index) for index in range(backend.slots)]
        self.kv_bytes = backend.kv_bytes
        self._slot_bytes = backend.kv_bytes // backend.slots
        self._prefixes = PrefixCache(2 * self._slot_bytes if prefix_bytes is None else prefix_bytes)
        self._inbox: deque[EngineRequest | int] = deque()  # an int cancels the request of that id
        self._waiting: deque[EngineRequest] = deque()
        self._flight: Flight | None = None
        self._switch = DrafterSwitch(backend)
        self._turn = 0  # slot whose prompt is read next
        self._freed = 0  # how often a slot became free

    def add(self, request: EngineRequest) -> None:
        """Queues `request` behind all earlier ones; thread-safe.

        Raises:
            PromptTooLong: the prompt leaves no room for one token in the context.
            BadRequest: the prompt is empty or holds an id that is no token.
        """
        check(request, self._backend.num_ctx, self._backend.vocab_size)
        self._inbox.append(request)

    def cancel(self, id: int) -> None:
        """Ends request `id`: what its round in flight brings is dropped; thread-safe.

        It is answered by Finished with reason "cancel", unless it has finished already.
        """
        self._inbox.append(id)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something; thread-safe."""
        waits = self._inbox or self._waiting or self._switch.has_work or self._flight
        return bool(waits or any(slot.sequence for slot in self._slots))

    @property
    def prefix_bytes(self) -> int:
        """Bytes of the prompts kept for next turns."""
        return self._prefixes.nbytes

    def reclaim(self, nbytes: int) -> int:
        """Gives back at least `nbytes` of kept prompts if there are so many; returns the bytes.

        For the thread that calls `step`. Costs time at the next turns of conversations, nothing
        else.
        """
        freed = self._prefixes.reclaim(nbytes)
        if freed and self._backend.device.type == "cuda":
            torch.cuda.empty_cache()  # torch would keep it for itself
        return freed

    @property
    def drafts(self) -> bool:
        """Whether there is a drafter and rounds may draft."""
        return self._backend.depth_limit(1) > 0

    @property
    def attaching(self) -> bool:
        """Whether a drafter is being put in."""
        return self._switch.attaching

    def detach(self, done: Callable[[int], None]) -> None:
        """The drafter is freed between two rounds; a `step` then gives `done` the bytes.

        For the thread that calls `step`, as is `attach`. No text changes by either.
        """
        self._switch.detach(done)

    def attach(self, drafter: Any, done: Callable[[Exception | None], None]) -> None:
        """Rounds may draft with `drafter` once a `step` has called `done` without an error."""
        self._switch.attach(drafter, done)

    def depth_state(self) -> dict[str, object]:
        """What was learned about depths, for the next engine of this pair."""
        return self._controller.state()

    def step(self) -> list[EngineEvent]:
        """Moves every sequence on; returns what happened.

        Waits for the device as long as a round, or where nothing decodes, a prompt's chunk takes.
        """
        flight, self._flight = self._flight, None
        if flight is not None:
            self._flight = self._behind(flight)
        landing = _landed(flight)
        events = self._read_inbox()  # first, so that nothing is added to a cancelled text
        events += self._commit(landing)
        if self._flight is None:
            self._switch.turn()
            events += self._answer_prompts()
        events += self._retire()
        events += self._fill_slots()
        if self._flight is None:
            events += self._launch()
        events += self._read_chunk()
        return events + self._retire()

    def _behind(self, flight: Flight) -> Flight | None:
        """The next round of the sequences in flight, begun before theirs has landed."""
        pairs = zip(flight.sequences, flight.depths, strict=True)
        rooms = [sequence.room - depth - 1 for sequence, depth in pairs]
        busy = [slot.sequence for slot in self._slots if slot.sequence is not None]
        others = self._inbox or self._switch.has_work or busy != flight.sequences
        if others or min(rooms) < 1:
            return None
        depth_limit = self._backend.depth_limit(len(busy))
        depths = planned_depths(busy, rooms, self._controller, depth_limit)
        try:
            pending = self._backend.follow(plans(flight.slots, depths))
        except _DEVICE_ERRORS:  # the round in flight has failed too, and says so
            return None
        return flight._replace(pending=pending, depths=depths) if pending else None

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
                slot.sequence.reason = "cancel"
        return []

    def _commit(self, landing: Landing | None) -> list[EngineEvent]:
        if landing is None:
            return []
        if isinstance(landing.result, Exception):
            return self._fail(landing.flight.held(), landing.result)
        return commit(landing.flight, landing.result, self._eos_ids, self._controller)

    def _retire(self) -> list[EngineEvent]:
        """Frees the slots of texts that are complete."""
        events: list[EngineEvent] = []
        for slot in self._slots:
            sequence = slot.sequence
            if sequence is not None and sequence.reason is not None:
                events.append(sequence.finished(sequence.reason, self._clock_ns()))
                self._freed += 1
                slot.end(self._freed)
        return events

    def _fill_slots(self) -> list[EngineEvent]:
        """Starts waiting requests, first come first served, each where most can be used again."""
        events: list[EngineEvent] = []
        while self._waiting and any(slot.sequence is None for slot in self._slots):
            request = self._waiting.popleft()
            if room_for(request, self._backend.num_ctx) == 0:
                events.append(_unstarted(request, "length"))
            else:
                self._place(self._sequence(request))
        return events

    def _sequence(self, request: EngineRequest) -> Sequence:
        return Sequence(
            id=request.id,
            tokens=list(request.tokens),
            prompt_tokens=len(request.tokens),
            sampler=Sampler(
                request.sampling,
                vocab=self._backend.vocab_size,
                suppress_ids=self._suppress_ids,
                device=self._backend.device,
            ),
            draft=request.draft,
            room=room_for(request, self._backend.num_ctx),
            started_ns=self._clock_ns(),
        )

    def _place(self, sequence: Sequence) -> None:
        """Gives it the free slot, and the snapshot where there is one, that saves most reading."""
        free = [slot for slot in self._slots if slot.sequence is None]
        saved = {slot: slot.reusable(sequence.tokens) for slot in free}

        def worth(slot: Slot) -> tuple[int, int]:
            return saved[slot] - (slot.held - saved[slot]) // _LOST_TEXT, -slot.freed

        best = max(free, key=worth)
        found = self._prefixes.find(sequence.tokens)
        if found is None or found.tokens <= saved[best]:
            best.begin(sequence, saved[best])
            return
        slot = min(free, key=lambda slot: (slot.held > 0, slot.freed))
        try:
            self._backend.restore(slot.index, found.snapshot)
        except _DEVICE_ERRORS:
            _log.warning("a kept prompt could not be used; it is read again", exc_info=True)
            self._backend.truncate(slot.index, 0)
        usable = self._backend.can_truncate(slot.index, found.tokens)
        slot.begin(sequence, found.tokens if usable else 0)

    def _launch(self) -> list[EngineEvent]:
        """Begins one round of all sequences that decode."""
        slots = [slot for slot in self._slots if slot.sequence and slot.sequence.decodes]
        if not slots:
            return []
        sequences = [slot.sequence for slot in slots if slot.sequence]
        depth_limit, rooms = self._backend.depth_limit(len(sequences)), [s.room for s in sequences]
        depths = planned_depths(sequences, rooms, self._controller, depth_limit)
        try:
            pending = self._backend.launch(plans(slots, depths))
        except _DEVICE_ERRORS as error:
            return self._fail(slots, error)
        self._flight = Flight(pending, slots, sequences, depths)
        return []

    def _read_chunk(self) -> list[EngineEvent]:
        """Reads a piece of one prompt, of each in turn; behind a round in flight a small one."""
        slot = self._next_prompt()
        if slot is None or slot.sequence is None:
            return []
        rows = self._backend.max_rows
        if self._flight is not None:
            rows = min(rows, CHUNK_BESIDE_ROUNDS)
        begin, end = slot.read, slot.sequence.prompt_tokens
        try:
            self._backend.prefill(slot.index, slot.sequence.tokens[begin : min(begin + rows, end)])
        except _DEVICE_ERRORS as error:
            return self._fail([slot], error)
        if self._flight is not None:  # the answer's first token would keep the caller waiting
            return []
        return self._answer_prompts()

    def _next_prompt(self) -> Slot | None:
        count = len(self._slots)
        for index in range(self._turn, self._turn + count):
            slot = self._slots[index % count]
            if slot.sequence is None or slot.sequence.answered_ns is not None:
                continue
            if slot.read < slot.sequence.prompt_tokens:
                self._turn = (index + 1) % count
                return slot
        return None

    def _answer_prompts(self) -> list[EngineEvent]:
        """Chooses the first token after every prompt that was read to its end."""
        events: list[EngineEvent] = []
        for slot in self._slots:
            sequence = slot.sequence
            if sequence is None or sequence.answered_ns is not None or sequence.reason is not None:
                continue
            if slot.read == sequence.prompt_tokens:
                events += self._answer(slot, sequence)
        return events

    def _answer(self, slot: Slot, sequence: Sequence) -> list[EngineEvent]:
        try:
            token = self._backend.first(slot.index, sequence.tokens, sequence.sampler)
        except _DEVICE_ERRORS as error:
            return self._fail([slot], error)
        self._keep(slot, sequence)
        visible = sequence.commit([token], self._eos_ids)
        sequence.answered_ns = self._clock_ns()
        return [Tokens(sequence.id, tuple(visible))] if visible else []

    def _keep(self, slot: Slot, sequence: Sequence) -> None:
        """Keeps the prompt for the conversation's next turn, memory permitting."""
        backend, text = self._backend, list(sequence.tokens)
        estimated = self._slot_bytes * len(text) // backend.num_ctx
        if not self._prefixes.wants(text, estimated):
            return
        try:
            snapshot = backend.snapshot(slot.index)
        except _DEVICE_ERRORS:
            _log.warning("no memory to keep a prompt; all kept ones are dropped", exc_info=True)
            self._prefixes.reclaim(self._prefixes.nbytes)
            return
        self._prefixes.put(text, snapshot, lambda n: backend.can_truncate(slot.index, n))

    def _fail(self, slots: list[Slot], error: Exception) -> list[EngineEvent]:
        """Drops sequences and all that their slots hold; nothing of it can be trusted."""
        events: list[EngineEvent] = []
        for slot in slots:
            sequence = slot.sequence
            assert sequence is not None
            if sequence.reason is None:
                events.append(Failed(sequence.id, error))
            else:
                events.append(sequence.finished(sequence.reason, self._clock_ns()))
            slot.clear()
        return events


def _landed(flight: Flight | None) -> Landing | None:
    if flight is None:
        return None
    try:
        return Landing(flight, flight.pending.wait())
    except _DEVICE_ERRORS as error:
        return Landing(flight, error)


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
