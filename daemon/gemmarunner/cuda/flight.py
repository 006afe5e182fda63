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

    These are requests with penalties or without top_k, and rows with a very large tie. NOTE: they
    cost a second product with the head, and a wait for each.
    """

    def __init__(
        self,
        target: CudaTarget,
        slots: Slots,
        plans: Sequence[RoundPlan],
        asks: Sequence[Ask],
        found: Tensor,
    ) -> None:
        """`found`: see `RoundGraphs`."""
        self._target = target
        self._slots = slots
        self._plans = plans
        self._asks = asks
        self._found = found
        self._clock = _DeviceClock(target.device)
        self.done = False

    def begin(self, run: Callable[[], RoundOutputs]) -> None:
        """Enqueues the round."""
        self._clock.start()
        self._outputs = run()
        self._clock.stop()

    @torch.inference_mode()
    def wait(self) -> RoundResult:
        """Blocks until the round is done; its tokens are then in the slots' lengths."""
        self.done = True  # also if it failed: it is over
        seconds = self._clock.wait()
        started = time.perf_counter()
        packed = self._outputs.packed
        found: list[list[int]] = self._found[: packed.numel()].view(packed.shape).tolist()
        tokens = [self._tokens(index, found[index]) for index in range(len(self._plans))]
        for ask, new in zip(self._asks, tokens, strict=True):
            self._slots.advance(ask.slot, len(new))
        return RoundResult(tokens, seconds + time.perf_counter() - started)

    def _tokens(self, index: int, row: list[int]) -> list[int]:
        """A sequence's new tokens; `row` is its part of `RoundOutputs.packed`."""
        count, overflow = row[:2]
        sampler, suppressed = self._plans[index].sampler, self._target.config.suppress_tokens
        if overflow or not fits_device(sampler, suppressed):
            return self._chosen_here(index)
        return row[2 : 2 + count]

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
