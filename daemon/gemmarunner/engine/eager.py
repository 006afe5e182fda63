"""Runs a pair by plain torch calls, drafts one by one, verifies together: on a CPU, on MPS.

A launched round runs when it is waited for, so that its caller has handled the events of the round
before it first: here nothing is gained by starting early.
"""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KVCache, KVSnapshot
from gemmarunner.engine.owned import freed_by
from gemmarunner.engine.ports import Drafter, Report, RoundPlan, RoundResult, Snapshot, Target
from gemmarunner.engine.propose import DraftKind
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.round import Pair, Turn, run_rounds
from gemmarunner.engine.sampling import Sampler

# Up to so many rows of one forward, a float32 target without experts computes each on an x86 CPU as
# if it were alone, bit for bit; its matrix products see to that.
EXACT_ROWS: Final = 9


class EagerBackend:
    """A target and perhaps a drafter with a K/V cache for each of `slots` sequences.

    `deterministic`: every verification runs max_depth + 1 rows, whatever was drafted, so that a
    text cannot depend on the depths even where results depend on the number of rows. It costs what
    the deepest verification does. With experts it promises less: how many rows an expert gets
    depends on the rows. `may_attach`: a drafter may come later.
    """

    def __init__(
        self,
        target: Target,
        drafter: Drafter | None,
        *,
        num_ctx: int,
        slots: int = 1,
        max_depth: int = 8,
        max_rows: int = 256,
        kind: DraftKind = DraftKind.COUPLED,
        deterministic: bool = False,
        may_attach: bool = False,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._pair = Pair(target, drafter, kind)
        self._clock_ns = clock_ns
        self.slots = slots
        self.num_ctx = num_ctx
        self.max_depth = max_depth if drafter is not None or may_attach else 0
        self.max_rows = max_rows
        self.vocab_size = target.config.vocab_size
        self.device = target.device
        exact = _computes_rows_alone(target) and max_depth < EXACT_ROWS
        self.row_invariant = exact or deterministic
        self._width = max_depth + 1 if deterministic and not exact else 0
        capacity, rows = num_ctx + self._width, max(max_rows, max_depth + 1)
        self._caches = [
            KVCache(
                target.config, capacity, rows, target.device, target.dtype, target.layer_devices
            )
            for _ in range(slots)
        ]
        self._hidden: list[Tensor | None] = [None] * slots  # [1, hidden], the last row's
        self.kv_bytes = sum(cache.nbytes for cache in self._caches)

    def kv_bytes_of(self, begin: int, end: int) -> int:
        """Bytes of the keys and values of layers begin..end-1."""
        return sum(cache.nbytes_of(begin, end) for cache in self._caches)

    def depth_limit(self, batch: int) -> int:
        """The greatest depth of a round of `batch` sequences; 0 while there is no drafter."""
        return 0 if self._pair.drafter is None else self.max_depth

    def length(self, slot: int) -> int:
        """Committed positions of a slot."""
        return self._caches[slot].length

    def can_truncate(self, slot: int, length: int) -> bool:
        """Whether `truncate` would leave every key that the next row has to see."""
        return self._caches[slot].can_truncate(length)

    def truncate(self, slot: int, length: int) -> None:
        """Drops the positions from `length` on."""
        self._caches[slot].truncate(length)

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int]) -> None:
        """Reads one chunk of a text, at most `max_rows` tokens, at `length(slot)` on."""
        target = self._pair.target
        rows = torch.tensor(tokens, dtype=torch.int64, device=target.device)
        self._hidden[slot] = target.forward(rows, self._caches[slot], keep=1)

    @torch.inference_mode()
    def first(self, slot: int, tokens: list[int], sampler: Sampler) -> int:
        """The token chosen after the last prefilled row; `tokens` is the whole text so far."""
        hidden = self._hidden[slot]
        assert hidden is not None
        logits = self._pair.target.logits(hidden)
        return int(sampler.choose(logits, sampler.history(tokens), len(tokens)))

    def launch(self, plans: Sequence[RoundPlan]) -> "EagerRound":
        """One round of all `plans`, which runs when it is waited for."""
        return EagerRound(self, plans)

    def follow(self, plans: Sequence[RoundPlan]) -> None:
        """No round runs by itself here."""

    @torch.inference_mode()
    def run(self, plans: Sequence[RoundPlan]) -> RoundResult:
        """One round of all `plans`, now."""
        started = self._clock_ns()
        turns = [self._turn(plan) for plan in plans]
        if self._width:  # results may depend on the number of rows, so nobody shares a product
            rounds = [run_rounds(self._pair, [turn], self._width)[0] for turn in turns]
        else:
            rounds = run_rounds(self._pair, turns)
        for plan, round in zip(plans, rounds, strict=True):
            self._hidden[plan.slot] = round.hidden
        seconds = (self._clock_ns() - started) / 1e9
        return RoundResult([round.tokens for round in rounds], seconds)

    def _turn(self, plan: RoundPlan) -> Turn:
        hidden = self._hidden[plan.slot]
        assert hidden is not None
        return Turn(self._caches[plan.slot], plan.sampler, plan.tokens, hidden, plan.depth)

    @torch.inference_mode()
    def snapshot(self, slot: int) -> KVSnapshot:
        """A copy of the slot's committed positions."""
        return self._caches[slot].snapshot()

    @torch.inference_mode()
    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """The slot then holds exactly what the snapshot's did."""
        self._caches[slot].restore(cast(KVSnapshot, snapshot))

    def detach(self) -> int:
        """Lets go of the drafter; the bytes that freed."""
        if self._pair.drafter is None:
            return 0
        return freed_by(self.device, self._drop_drafter)

    def _drop_drafter(self) -> None:
        self._pair = self._pair._replace(drafter=None)

    def attach(self, drafter: Drafter) -> Iterator[None]:
        """The next round may draft."""
        self._pair = self._pair._replace(drafter=drafter)
        yield from ()

    def warm(self, report: Report) -> None:
        """A few rows and rounds in the first slot, so that no request pays for first uses."""
        text = [0] * min(4, self.num_ctx - self.max_depth - 2)
        deepest = self.depth_limit(1)
        depths = [0, deepest] if deepest else [0]
        if text:
            self.prefill(0, text)
            for depth in depths:
                self.run([RoundPlan(0, [*text, 0], _warming(self), depth)])
                self.truncate(0, len(text))
            self.truncate(0, 0)
        report(1, 1)

    def close(self) -> None:
        """Lets go of the caches."""
        self._caches.clear()
        self._hidden.clear()


class EagerRound:
    """A round that runs when it is waited for."""

    def __init__(self, backend: EagerBackend, plans: Sequence[RoundPlan]) -> None:
        self._backend = backend
        self._plans = plans

    def wait(self) -> RoundResult:
        """Runs it."""
        return self._backend.run(self._plans)


def _computes_rows_alone(target: Target) -> bool:
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    exact = target.device.type == "cpu" and target.dtype is torch.float32 and on_x86
    return exact and getattr(target.config, "moe", None) is None


def _warming(backend: EagerBackend) -> Sampler:
    return Sampler(Sampling(seed=0), vocab=backend.vocab_size, device=backend.device)
