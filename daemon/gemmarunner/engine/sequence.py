"""One request on its way: its text so far, how far the model has read it, when it must end."""

from dataclasses import dataclass, field

from torch import Tensor

from gemmad.wire import DraftMode
from gemmarunner.engine.controller import Regime
from gemmarunner.engine.events import EngineRequest, Finished, Reason
from gemmarunner.engine.sampling import Sampler
from gemmarunner.engine.stats import DraftLedger


@dataclass(slots=True)
class Sequence:
    """A request that has a slot."""

    id: int
    tokens: list[int]  # prompt and answer, an end-of-sequence token included
    prompt_tokens: int
    sampler: Sampler
    draft: DraftMode
    room: int  # tokens the text may still grow by
    started_ns: int
    hidden: Tensor | None = None  # [1, hidden]; the row that chose the last token
    answered_ns: int | None = None  # when the first token was chosen
    eval_tokens: int = 0
    reason: Reason | None = None
    ledger: DraftLedger = field(default_factory=DraftLedger)

    @property
    def regime(self) -> Regime:
        """Whose acceptance figures its rounds belong to."""
        return Regime.GREEDY if self.sampler.greedy else Regime.SAMPLED

    def commit(self, chosen: list[int], eos_ids: frozenset[int]) -> list[int]:
        """Appends what the target chose, up to an end-of-sequence token, which ends the text.

        Returns the new tokens a reader sees. `reason` is set when the text is complete.
        """
        assert len(chosen) <= self.room
        end = next((i for i, token in enumerate(chosen) if token in eos_ids), None)
        visible = chosen[:end]
        self.tokens += visible if end is None else chosen[: end + 1]
        self.room -= len(visible)
        self.eval_tokens += len(visible)
        if end is not None:
            self.reason = "stop"
        elif self.room == 0:
            self.reason = "length"
        return visible

    def finished(self, reason: Reason, now_ns: int) -> Finished:
        """Its last event."""
        answered = self.answered_ns or now_ns
        return Finished(
            id=self.id,
            reason=reason,
            prompt_tokens=self.prompt_tokens,
            prompt_ns=answered - self.started_ns,
            eval_tokens=self.eval_tokens,
            eval_ns=now_ns - answered,
            draft=self.ledger.stats(),
        )


def room_for(request: EngineRequest, num_ctx: int) -> int:
    """How many tokens the answer may have: what was asked for, within the context."""
    asked = request.sampling.num_predict if request.max_tokens is None else request.max_tokens
    free = num_ctx - len(request.tokens)
    return free if asked < 0 else min(asked, free)
