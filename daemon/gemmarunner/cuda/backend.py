"""Runs a pair for the engine, every round of all its sequences as one graph on the device."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from gemmarunner.cuda.drafter import CudaDrafter
from gemmarunner.cuda.flight import CudaPending
from gemmarunner.cuda.graphs import RoundGraphs, Shape
from gemmarunner.cuda.inputs import Ask, Inputs
from gemmarunner.cuda.prompts import PromptGraphs
from gemmarunner.cuda.round import CudaRound
from gemmarunner.cuda.slots import Slots, SlotSnapshot, buckets
from gemmarunner.cuda.tail import TailGraph
from gemmarunner.cuda.target import CudaTarget, Tail
from gemmarunner.cuda.warming import build_kernels, load_libraries
from gemmarunner.engine.owned import freed_by
from gemmarunner.engine.ports import RoundPlan, Snapshot
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler

MAX_ROWS = 2048  # of a prefill chunk: beyond it the matrix products gain nothing


class CudaBackend:
    """A target and perhaps a drafter, with `slots` places for sequences; see `engine.ports`.

    `synthetic`, for benchmarks alone: the share of rounds in which draft i stays, whatever the
    target says.
    """

    row_invariant = True

    def __init__(
        self,
        target: CudaTarget,
        drafter: CudaDrafter | None,
        *,
        num_ctx: int,
        slots: int = 1,
        max_depth: int = 8,
        max_rows: int = MAX_ROWS,
        may_attach: bool = False,
        synthetic: Sequence[float] | None = None,
    ) -> None:
        """`may_attach`: a drafter may come later."""
        self.slots = slots
        self.num_ctx = num_ctx
        self.max_depth = max_depth if drafter is not None or may_attach else 0
        self.max_rows = max_rows
        self.vocab_size = target.config.vocab_size
        self.device = target.device
        self._target = target
        # A shallow sequence beside a deep one computes rows beyond its own end.
        capacity = num_ctx + self.max_depth
        self._slots = Slots(
            target.config, slots, capacity, target.device, target.dtype, target.layer_devices
        )
        self._inputs = Inputs(slots, target.device)
        self._round = CudaRound(target, drafter, self._slots, self._shares(synthetic))
        self._prompts = PromptGraphs(target, self._slots, min(max_rows, num_ctx))
        self._finish = TailGraph(target, self._slots)
        self._tails: dict[int, Tail] = {}  # by slot: the last prefilled row, halfway
        sizes = buckets(slots)
        most, pinned = sizes[-1] * (self.max_depth + 3), target.device.type == "cuda"
        self._found = deque(  # of the round in flight and of the one behind it
            torch.empty(most, dtype=torch.int64, pin_memory=pinned) for _ in range(2)
        )
        self._graphs = RoundGraphs(self._round, self._inputs, sizes, self.max_depth, target.device)
        self._graphs.drafts = drafter is not None
        self._in_flight: CudaPending | None = None  # the last one begun
        self._alone: set[int] = set()  # slots whose rounds must land before the next begins

    @property
    def kv_bytes(self) -> int:
        """Bytes of all slots' keys and values."""
        return self._slots.nbytes

    def kv_bytes_of(self, begin: int, end: int) -> int:
        """Bytes of the keys and values of layers begin..end-1."""
        return self._slots.nbytes_of(begin, end)

    def depth_limit(self, batch: int) -> int:
        """The greatest depth of a round of `batch` sequences; 0 while there is no drafter."""
        return self._graphs.deepest(self._graphs.bucket(batch))

    def length(self, slot: int) -> int:
        """Committed positions of a slot."""
        return self._slots.length(slot)

    def can_truncate(self, slot: int, length: int) -> bool:
        """Whether `truncate` would leave every key that the next row has to see."""
        return self._slots.can_truncate(slot, length)

    def truncate(self, slot: int, length: int) -> None:
        """Drops the positions from `length` on, and what a round in flight brings the slot."""
        if self._in_flight is not None:
            self._in_flight.forget(slot)
        self._alone.discard(slot)
        self._slots.truncate(slot, length)

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int]) -> None:
        """Reads one chunk of a text, at most `max_rows` tokens, at `length(slot)` on."""
        assert 0 < len(tokens) <= self.max_rows
        self._tails[slot] = self._prompts(slot, tokens)

    @torch.inference_mode()
    def first(self, slot: int, tokens: list[int], sampler: Sampler) -> int:
        """The token chosen after the last prefilled row; `tokens` is the whole text so far."""
        hidden, logits = self._finish(self._tails.pop(slot))
        self._slots.hidden[slot] = hidden[0]
        return int(sampler.choose(logits, sampler.history(tokens), len(tokens)).item())

    @torch.inference_mode()
    def launch(self, plans: Sequence[RoundPlan]) -> CudaPending:
        """Begins one round of all `plans`, of as many slots, and returns at once."""
        assert self._in_flight is None or self._in_flight.done, "one round at a time"
        shape = self._shape(plans)
        for plan in plans:
            assert self.length(plan.slot) == len(plan.tokens) - 1
            self._slots.write_ahead(plan.slot, shape.depth + 1)
        asks = [_ask(plan, shape.depth) for plan in plans]
        self._inputs.write(asks, shape.batch)
        self._inputs.send()
        return self._begin(plans, asks, shape)

    @torch.inference_mode()
    def follow(self, plans: Sequence[RoundPlan]) -> CudaPending | None:
        """A round of `plans` begins where the one in flight will end; None where none may."""
        ahead = self._in_flight
        if ahead is None or self._alone or not ahead.leads(plans):
            return None
        shape = self._shape(plans)
        rows = {plan.slot: ahead.rows(plan.slot) + shape.depth + 1 for plan in plans}
        if any(count > self._slots.room(slot) for slot, count in rows.items()):
            return None
        for slot, count in rows.items():
            self._slots.write_ahead(slot, count)
        asks = [_ask(plan, shape.depth) for plan in plans]  # of their starts nothing is sent
        self._inputs.send_depths([ask.depth for ask in asks], shape.batch)
        ahead.behind = self._begin(plans, asks, shape)
        return ahead.behind

    def _shape(self, plans: Sequence[RoundPlan]) -> Shape:
        batch = self._graphs.bucket(len(plans))
        return Shape(batch, min(max(plan.depth for plan in plans), self._graphs.deepest(batch)))

    def _begin(self, plans: Sequence[RoundPlan], asks: Sequence[Ask], shape: Shape) -> CudaPending:
        self._found.rotate()
        pending = CudaPending(self._target, self._slots, plans, asks, self._found[0], self._alone)
        pending.begin(lambda: self._graphs(shape))
        self._in_flight = pending
        return pending

    @torch.inference_mode()
    def snapshot(self, slot: int) -> SlotSnapshot:
        """A copy of all that the slot's committed positions need."""
        return self._slots.snapshot(slot)

    @torch.inference_mode()
    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """The slot then holds exactly what the snapshot's did, its hidden row aside."""
        self._slots.restore(slot, cast(SlotSnapshot, snapshot))

    def detach(self) -> int:
        """Frees the drafter and the rounds that draft; the bytes."""
        if self._round.drafter is None:
            return 0
        return freed_by(self.device, self._drop_drafter)

    def _drop_drafter(self) -> None:
        self._in_flight = None  # it is over, and holds what its graph left
        self._graphs.drafts = False
        self._graphs.clear_drafting()
        self._round.drafter = None

    def attach(self, drafter: CudaDrafter) -> Iterator[None]:
        """A `next` captures one round that drafts; where kernels are new, they are built first."""
        self._round.drafter = drafter
        for shape in self._graphs.drafting_shapes:
            self._capture_beside(shape)
            yield
        self._graphs.drafts = True

    @torch.inference_mode()
    def _capture_beside(self, shape: Shape) -> None:
        """Captures a round while slots hold texts.

        Its trial run writes rows behind the shortest text, where the next rows will be written, and
        a hidden row, which is put back.
        """
        slot = min(range(self.slots), key=self.length)
        self._slots.write_ahead(slot, shape.depth + 1)
        kept = self._slots.hidden.clone()
        sampler = Sampler(Sampling(seed=0), vocab=self.vocab_size, device=self.device)
        ask = Ask(slot, self.length(slot), 0, shape.depth, sampler)
        self._inputs.write([ask], shape.batch)
        self._graphs.build(shape)
        self._slots.hidden.copy_(kept)

    @torch.inference_mode()
    def warm(self, report: Callable[[int, int], None]) -> None:
        """Builds all kernels and captures all rounds; every slot is empty afterwards."""
        sampler = Sampler(Sampling(seed=0), vocab=self.vocab_size, device=self.device)
        self._inputs.write([Ask(0, 1, 0, self.depth_limit(1), sampler)], self.slots)
        self._inputs.send()
        longest = min(self.max_rows, self.num_ctx)
        if self.device.type == "cuda":
            build_kernels(self._graphs, self._read_garbage, longest)
            self._slots.clear()
            load_libraries(self._read_garbage, longest)
            self._slots.truncate(0, 0)
            self.prefill(0, [0])
            self._finish.capture(self._tails.pop(0))
            self._prompts.capture()
            sampler.choose(torch.zeros(1, self.vocab_size, device=self.device), None, 1)
        self._graphs.warm(report)
        self._slots.clear()
        self._tails.clear()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def close(self) -> None:
        """Frees models, graphs, keys and values."""
        self._graphs.clear()
        self._finish.clear()
        self._prompts.clear()
        self._tails.clear()
        del self._target, self._slots, self._graphs, self._finish, self._in_flight, self._round
        del self._prompts

    def _read_garbage(self, count: int) -> None:
        """A prompt of `count` tokens up to its logits, which nobody sees."""
        self._slots.truncate(0, 0)
        self.prefill(0, [0] * count)
        self._finish.run_plainly(self._tails.pop(0))

    def _shares(self, synthetic: Sequence[float] | None) -> Tensor | None:
        if synthetic is None:
            return None
        shares = [*synthetic, *[0.0] * self.max_depth][: self.max_depth]
        return torch.tensor(shares, dtype=torch.float32, device=self.device)


def _ask(plan: RoundPlan, deepest: int) -> Ask:
    depth, text = min(plan.depth, deepest), plan.tokens
    return Ask(plan.slot, len(text) - 1, text[-1], depth, plan.sampler, text)
