"""A round under way: from the launch of its graph to the tokens on the host."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gemmarunner.cuda.inputs import Ask, fits_device
from gemmarunner.cuda.round import RoundOutputs
from gemmarunner.cuda.slots import Slots
from gemmarunner.cuda.target import CudaTarget
from gemmarunner.engine.accept import agreed
from gemmarunner.engine.ports import RoundPlan, RoundResult


class CudaPending:
    """See `engine.ports.Pending`. Sequences the graph cannot choose for are chosen for at the end.

    These are requests without top_k or with penalties of a long text, and rows with a very large
    tie. NOTE: they cost a second product with the head, and a wait for each. A round behind has
    written over what that takes; so there both rounds bring these sequences nothing.
    """

    def __init__(
        self,
        target: CudaTarget,
        slots: Slots,
        plans: Sequence[RoundPlan],
        asks: Sequence[Ask],
        found: Tensor,
        alone: set[int],
    ) -> None:
        """`found`, int64 on the host, takes what the round brings; pinned where there is a GPU.

        `alone` gets the slots whose tokens the graph could not choose.
        """
        self._target = target
        self._slots = slots
        self._plans = plans
        self._asks = asks
        self._found = found
        self._alone = alone
        self._clock = _DeviceClock(target.device)
        self._forgotten: set[int] = set()
        self.behind: CudaPending | None = None  # the round begun behind this one
        self.done = False

    def begin(self, run: Callable[[], RoundOutputs]) -> None:
        """Enqueues the round, and the copy of its tokens to the host."""
        self._clock.start()
        self._outputs = run()
        packed = self._outputs.packed
        self._place().copy_(packed, non_blocking=True)
        self._clock.stop()

    def leads(self, plans: Sequence[RoundPlan]) -> bool:
        """Whether a round of `plans` may be enqueued behind this one before it is over.

        It must have the very sequences of this one, and all their tokens must come of the graph.
        """
        own = [(plan.slot, id(plan.sampler)) for plan in self._plans]
        return (
            not self.done
            and not self._forgotten
            and own == [(plan.slot, id(plan.sampler)) for plan in plans]
            and all(self._chosen_there(plan) for plan in plans)
        )

    def rows(self, slot: int) -> int:
        """How many positions at most the round adds to a slot that it has."""
        return next(ask.depth for ask in self._asks if ask.slot == slot) + 1

    def forget(self, slot: int) -> None:
        """What the round brings for a slot is dropped."""
        self._forgotten.add(slot)

    @torch.inference_mode()
    def wait(self) -> RoundResult:
        """Blocks until the round is done; its tokens are then in the slots' lengths."""
        self.done = True  # also if it failed: it is over
        seconds = self._clock.wait()
        started = time.perf_counter()
        found: list[list[int]] = self._place().tolist()
        tokens = [self._tokens(index, found[index]) for index in range(len(self._plans))]
        for ask, new in zip(self._asks, tokens, strict=True):
            if new:
                self._slots.advance(ask.slot, len(new))
        return RoundResult(tokens, seconds + time.perf_counter() - started)

    def _place(self) -> Tensor:
        packed = self._outputs.packed
        return self._found[: packed.numel()].view(packed.shape)

    def _chosen_there(self, plan: RoundPlan) -> bool:
        return fits_device(plan.sampler, self._target.config.suppress_tokens)

    def _tokens(self, index: int, row: list[int]) -> list[int]:
        """A sequence's new tokens; `row` is its part of `RoundOutputs.packed`."""
        plan, (count, overflow) = self._plans[index], row[:2]
        if plan.slot in self._forgotten:
            return []
        if self._chosen_there(plan) and not overflow:
            return row[2 : 2 + count]
        self._alone.add(plan.slot)
        if self.behind is None:
            return self._chosen_here(index)
        self.behind.forget(plan.slot)
        return []

    def _chosen_here(self, index: int) -> list[int]:
        """As the graph would have done: chooses, accepts, and keeps the hidden row."""
        plan, ask = self._plans[index], self._asks[index]
        drafts = self._outputs.drafts[index, : ask.depth]
        hidden = self._outputs.hidden[index, : ask.depth + 1]
        history = plan.sampler.history(plan.tokens)
        if history is not None:
            history = torch.cat((history, drafts))
        logits = self._target.logits(hidden)
        chosen = plan.sampler.choose(logits, history, len(plan.tokens))
        new = agreed(drafts.tolist(), chosen.tolist())
        self._slots.hidden[ask.slot] = hidden[len(new) - 1]
        return new


class _DeviceClock:
    """Times what is enqueued between start and stop, on the device itself."""

    def __init__(self, device: torch.device) -> None:
        self._events: list[Any] | None = None
        if device.type == "cuda":
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        self._times = [0.0, 0.0]

    def start(self) -> None:
        self._mark(0)

    def stop(self) -> None:
        self._mark(1)

    def wait(self) -> float:
        """Seconds between the two, once both have passed."""
        if self._events is None:
            return self._times[1] - self._times[0]
        begin, end = self._events
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def _mark(self, index: int) -> None:
        if self._events is not None:
            self._events[index].record()
        else:
            self._times[index] = time.perf_counter()
