"""One request on its way: its text so far, how far the model has read it, when it must end."""

from dataclasses import dataclass, field

from gemmarunner.engine.controller import Regime
from gemmarunner.engine.events import Finished, Reason
from gemmarunner.engine.request import DraftMode
from gemmarunner.engine.sampling import Sampler
from gemmarunner.engine.stats import DraftLedger


@dataclass(slots=True, eq=False)
class Sequence:
    """A request that has a slot."""

    id: int
    tokens: list[int]  # prompt and answer, an end-of-sequence token included
    prompt_tokens: int
    sampler: Sampler
    draft: DraftMode
    room: int  # tokens the text may still grow by
    started_ns: int
    answered_ns: int | None = None  # when the first token was chosen
    eval_tokens: int = 0
    reason: Reason | None = None
    ledger: DraftLedger = field(default_factory=DraftLedger)

    @property
    def regime(self) -> Regime:
        """Whose acceptance figures its rounds belong to."""
        if self.sampler.bent:
            return Regime.CONSTRAINED
        return Regime.GREEDY if self.sampler.greedy else Regime.SAMPLED

    @property
    def decodes(self) -> bool:
        """Whether its next token comes of a round: its first is chosen, its last is not."""
        return self.answered_ns is not None and self.reason is None

    @property
    def drafts(self) -> int | None:
        """The depth it is to be drafted at; None: whatever pays."""
        if self.draft == "auto":
            return None
        return 0 if self.draft == "off" else max(0, self.draft)

    def commit(self, chosen: list[int], eos_ids: frozenset[int]) -> list[int]:
        """Appends what the target chose, up to an end-of-sequence token, which ends the text.

        Returns the new tokens a reader sees. `reason` is set when the text is complete.
        """
        assert len(chosen) <= self.room
        if eos_ids.isdisjoint(chosen):
            visible = chosen
            self.tokens += chosen
        else:
            end = next(i for i, token in enumerate(chosen) if token in eos_ids)
            visible = chosen[:end]
            self.tokens += chosen[: end + 1]
            self.reason = "stop"
        self.room -= len(visible)
        self.eval_tokens += len(visible)
        if self.reason is None and self.room == 0:
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
