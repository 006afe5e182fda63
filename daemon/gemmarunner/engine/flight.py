"""One round from its plans to what its sequences and the depth controller make of it."""

from collections.abc import Mapping
from typing import NamedTuple

from gemmarunner.engine.controller import DepthController, Regime
from gemmarunner.engine.events import EngineEvent, Tokens
from gemmarunner.engine.ports import Pending, RoundPlan, RoundResult
from gemmarunner.engine.sequence import Sequence
from gemmarunner.engine.slot import Slot


class Flight(NamedTuple):
    """A round under way, and whose it is."""

    pending: Pending
    slots: list[Slot]
    sequences: list[Sequence]
    depths: list[int]

    def held(self) -> list[Slot]:
        """The slots that still belong to the sequences of this round."""
        pairs = zip(self.slots, self.sequences, strict=True)
        return [slot for slot, sequence in pairs if slot.sequence is sequence]


class Landing(NamedTuple):
    """A round that is over: what it brought, or how it failed."""

    flight: Flight
    result: RoundResult | Exception


def planned_depths(
    sequences: list[Sequence], rooms: list[int], controller: DepthController, depth_limit: int
) -> list[int]:
    """How many tokens to draft for each, whose text may still grow by `rooms`."""
    limits = [min(depth_limit, room - 1) for room in rooms]
    chosen: Mapping[Regime, int] = {}
    if depth_limit and any(sequence.drafts is None for sequence in sequences):
        widest: dict[Regime, int] = {}
        for sequence, limit in zip(sequences, limits, strict=True):
            if sequence.drafts is None:
                widest[sequence.regime] = max(limit, widest.get(sequence.regime, 0))
        chosen = controller.choose(len(sequences), widest, depth_limit)
    return [
        min(limit, chosen.get(s.regime, 0) if s.drafts is None else s.drafts)
        for s, limit in zip(sequences, limits, strict=True)
    ]


def plans(slots: list[Slot], depths: list[int]) -> list[RoundPlan]:
    """What the backend is asked for."""
    made = []
    for slot, depth in zip(slots, depths, strict=True):
        assert slot.sequence is not None
        made.append(RoundPlan(slot.index, slot.sequence.tokens, slot.sequence.sampler, depth))
    return made


def commit(
    flight: Flight, result: RoundResult, eos_ids: frozenset[int], controller: DepthController
) -> list[EngineEvent]:
    """The texts grow by what the round brought, cancelled ones aside, and figures are learned."""
    events: list[EngineEvent] = []
    outcomes: list[tuple[Regime, list[bool]]] = []
    for sequence, depth, tokens in zip(flight.sequences, flight.depths, result.tokens, strict=True):
        if sequence.reason is not None or not tokens:  # over while the round was in flight
            continue
        visible = sequence.commit(tokens, eos_ids)
        outcomes.append((sequence.regime, _counted(sequence, depth, tokens, visible)))
        if visible:
            events.append(Tokens(sequence.id, tuple(visible)))
    controller.record(len(flight.slots), max(flight.depths), outcomes, result.seconds)
    return events


def _counted(sequence: Sequence, depth: int, tokens: list[int], visible: list[int]) -> list[bool]:
    """The drafts' outcomes up to the first rejected, none of them after the end of the text."""
    stopped = sequence.reason == "stop"
    reached = min(depth, len(visible) + stopped)
    outcomes = [index + 1 < len(tokens) for index in range(reached)]
    sequence.ledger.record(
        depth,
        drafted=reached if stopped else depth,
        outcomes=outcomes,
        added=len(visible) + stopped,
    )
    return outcomes
