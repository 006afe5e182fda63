"""What the engine asks of whoever runs a pair, and what its own runner asks of models."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import CacheShape, KVCache
from gemmarunner.engine.sampling import Sampler

Report = Callable[[int, int], None]  # steps done, steps in all


class RoundPlan(NamedTuple):
    """What one sequence wants of the next round."""

    slot: int
    tokens: list[int]  # the whole text; its last token is not in the cache; not to be changed
    sampler: Sampler
    depth: int  # 0 to max_depth drafts


class RoundResult(NamedTuple):
    """What a round brought."""

    tokens: list[list[int]]  # a plan each: 1 to depth + 1 new tokens; none: see `Backend.follow`
    seconds: float  # the round alone on its device, neither queueing nor what the caller does


class Pending(Protocol):
    """A round under way."""

    def wait(self) -> RoundResult:
        """Blocks until the round is done; called once.

        The slots' caches then hold their new texts but the last token; rejected drafts are gone.

        Raises:
            RuntimeError: the device failed; nothing in the slots of the round can be trusted.
        """


class Snapshot(Protocol):
    """A copy of one slot's keys and values; freed when nobody holds it."""

    @property
    def nbytes(self) -> int: ...
    @property
    def length(self) -> int: ...


class Backend(Protocol):
    """A pair on its device, with `slots` places for sequences. One thread calls it.

    Every slot also holds the hidden row that chose its text's last token: `first` and each round
    set it, the next round drafts from it. What is called while a round is in flight may touch only
    slots outside that round.
    """

    @property
    def slots(self) -> int: ...
    @property
    def num_ctx(self) -> int: ...
    @property
    def max_depth(self) -> int: ...  # the greatest ever; 0 where no drafter can come
    @property
    def vocab_size(self) -> int: ...
    @property
    def max_rows(self) -> int: ...  # rows of the longest prefill chunk
    @property
    def kv_bytes(self) -> int: ...  # of all slots
    @property
    def device(self) -> torch.device: ...  # where samplers keep what they need
    @property
    def row_invariant(self) -> bool: ...  # a row's result is the same however many ran with it

    def depth_limit(self, batch: int) -> int:
        """The greatest depth of a round of `batch` sequences; 0 while there is no drafter."""

    def length(self, slot: int) -> int:
        """Committed positions of a slot."""

    def can_truncate(self, slot: int, length: int) -> bool:
        """Whether `truncate` would leave every key that the next row has to see."""

    def truncate(self, slot: int, length: int) -> None:
        """Drops the positions from `length` on; `length` 0 is always possible.

        Also while a round is in flight: what it brings for the slot is dropped too.
        """

    def prefill(self, slot: int, tokens: Sequence[int]) -> None:
        """Reads one chunk of a text, at most `max_rows` tokens, at `length(slot)` on.

        Raises:
            RuntimeError: the device failed, by lack of memory for one.
        """

    def first(self, slot: int, tokens: list[int], sampler: Sampler) -> int:
        """The token chosen after the last prefilled row; `tokens` is the whole text so far."""

    def launch(self, plans: Sequence[RoundPlan]) -> Pending:
        """Begins one round of all `plans`, of as many slots; asynchronous where the device is.

        Raises:
            RuntimeError: the device failed; nothing in the slots of the round can be trusted.
        """

    def follow(self, plans: Sequence[RoundPlan]) -> Pending | None:
        """Begins the round behind the one in flight, whose tokens the texts in `plans` still lack.

        The device then never waits for its host. None where it cannot be: for other sequences than
        those in flight, near the end of a slot, on a device that runs nothing by itself. At most
        one round follows another; the first is waited for before a third begins. Where a row of a
        round with a follower turns out to need its host, both bring that sequence no tokens.

        Raises:
            RuntimeError: the device failed; nothing in the slots of the rounds can be trusted.
        """

    def snapshot(self, slot: int) -> Snapshot:
        """A copy of all that the slot's committed positions need.

        Raises:
            RuntimeError: no memory for it.
        """

    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """The slot then holds exactly what the snapshot's did, its hidden row aside."""

    def detach(self) -> int:
        """Frees the drafter and what only it needs; the bytes. No round is in flight."""

    def attach(self, drafter: Any) -> Iterator[None]:
        """Puts a drafter in, a bounded piece of work with each `next`, none while a round flies.

        Slots keep what they hold. When it is exhausted, rounds may draft.

        Raises:
            RuntimeError: the device failed, by lack of memory for one; `detach` is to follow.
        """

    def warm(self, report: Report) -> None:
        """Builds and captures all that requests will need; no request is open."""

    def close(self) -> None:
        """Frees the device's memory; nothing is called after it."""


class TextShape(CacheShape, Protocol):
    """What must be known of a model's shape."""

    @property
    def vocab_size(self) -> int: ...


class Candidates(Protocol):
    """Tokens a drafter scored."""

    @property
    def ids(self) -> Tensor | None: ...  # [candidates] int64; None: the column is the token id
    @property
    def logits(self) -> Tensor: ...  # [candidates] f32


class Target(Protocol):
    """The model whose text it is, as `EagerBackend` runs it."""

    @property
    def config(self) -> TextShape: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def layer_devices(self) -> Sequence[torch.device] | None: ...  # None: all on `device`

    def forward(self, tokens: Tensor, cache: KVCache, keep: int | None = None) -> Tensor:
        """The last `keep` final hidden rows [keep, hidden] of `tokens` [rows] int64.

        Afterwards `cache` holds the tokens too.
        """

    def forward_many(self, tokens: Sequence[Tensor], caches: Sequence[KVCache]) -> list[Tensor]:
        """`forward` of several sequences at once, [rows] int64 each; all their hidden rows."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores [rows, vocab] f32 of the token after each row; a fresh tensor."""


class Drafter(Protocol):
    """The small model that guesses what the target will say, as `EagerBackend` runs it."""

    def prepare(self, cache: KVCache) -> Any:
        """What the steps of one round need of the committed keys and values."""

    def step(self, token: Tensor, hidden: Tensor, context: Any) -> tuple[Tensor, Tensor]:
        """Rows (normed [1, draft hidden], next hidden [1, hidden]) after `token` [1] int64."""

    def candidates(self, normed: Tensor) -> Candidates:
        """Scores of the token that follows."""
