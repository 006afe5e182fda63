"""Plans a comparison of answers with and without drafting, and computes its report; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from gemmacli.records import Draft

OFF = "off"


class Trial(NamedTuple):
    """One request of the plan."""

    repeat: int
    prompt: int
    draft: str | int


class Sample(NamedTuple):
    """What a trial gave; `text` is thinking and answer together."""

    trial: Trial
    text: str
    eval_tokens: int
    eval_s: float
    draft: Draft | None


@dataclass(frozen=True, slots=True)
class Side:
    """All trials of one mode together."""

    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens over the time they took; 0 when nothing was measured."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafting did over all trials; shares are weighted by the rounds that reached them."""

    drafted: int
    accepted: int
    rounds: int
    per_position: tuple[float, ...]
    tokens_per_round: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything `gemma bench` says."""

    model: str
    draft: str | int
    prompts: int
    repeats: int
    num_predict: int
    plain: Side
    drafted: Side
    ratios: tuple[float, ...]  # one a repeat: drafted over plain tokens per second
    drafting: Drafting
    differing: tuple[str, ...]  # prompts whose answers were not all byte-identical

    @property
    def ratio(self) -> float:
        """Median over repeats."""
        from statistics import median  # 12 ms, which every command would pay

        return median(self.ratios) if self.ratios else 0.0

    @property
    def identical(self) -> bool:
        """Every prompt got the same bytes in every trial of both modes."""
        return not self.differing


def plan(prompts: int, repeats: int, draft: str | int) -> list[Trial]:
    """Every prompt in both modes in every repeat; which mode comes first alternates.

    Interleaving spreads a slow moment of the machine over both modes, alternating takes away
    what the first of two equal requests pays for both.
    """
    trials = []
    for repeat in range(repeats):
        for prompt in range(prompts):
            pair = [Trial(repeat, prompt, OFF), Trial(repeat, prompt, draft)]
            trials += pair if (repeat + prompt) % 2 == 0 else pair[::-1]
    return trials


def report(
    model: str,
    prompts: Sequence[str],
    samples: Sequence[Sample],
    *,
    draft: str | int,
    num_predict: int,
) -> Report:
    """The figures of all samples."""
    plain = [sample for sample in samples if sample.trial.draft == OFF]
    drafted = [sample for sample in samples if sample.trial.draft != OFF]
    return Report(
        model=model,
        draft=draft,
        prompts=len(prompts),
        repeats=len({sample.trial.repeat for sample in samples}),
        num_predict=num_predict,
        plain=side(plain),
        drafted=side(drafted),
        ratios=tuple(_ratios(samples)),
        drafting=drafting(sample.draft for sample in drafted),
        differing=tuple(prompts[number] for number in differing(samples)),
    )


def side(samples: Sequence[Sample]) -> Side:
    """Tokens and seconds summed."""
    tokens = sum(sample.eval_tokens for sample in samples)
    return Side(tokens, sum(sample.eval_s for sample in samples))


def _ratios(samples: Sequence[Sample]) -> Iterable[float]:
    ordered = sorted(samples, key=lambda sample: sample.trial.repeat)
    for _, group in groupby(ordered, key=lambda sample: sample.trial.repeat):
        repeat = list(group)
        plain = side([sample for sample in repeat if sample.trial.draft == OFF])
        drafted = side([sample for sample in repeat if sample.trial.draft != OFF])
        if plain.tokens_per_second:
            yield drafted.tokens_per_second / plain.tokens_per_second


def drafting(drafts: Iterable[Draft | None]) -> Drafting:
    """Counts summed; a position's share is weighted by how many rounds reached it."""
    known = [draft for draft in drafts if draft is not None]
    rounds = sum(draft.rounds for draft in known)
    tokens = sum(draft.tokens_per_round * draft.rounds for draft in known)
    return Drafting(
        drafted=sum(draft.drafted for draft in known),
        accepted=sum(draft.accepted for draft in known),
        rounds=rounds,
        per_position=_positions(known),
        tokens_per_round=tokens / rounds if rounds else 0.0,
    )


def _positions(drafts: Sequence[Draft]) -> tuple[float, ...]:
    depth = max((len(draft.per_position) for draft in drafts), default=0)
    reached, accepted = [0.0] * depth, [0.0] * depth
    for draft in drafts:
        rounds = float(draft.rounds)
        for position, share in enumerate(draft.per_position):
            reached[position] += rounds
            rounds *= share  # only these went on to the next position
            accepted[position] += rounds
    return tuple(hit / seen if seen else 0.0 for hit, seen in zip(accepted, reached, strict=True))


def differing(samples: Sequence[Sample]) -> list[int]:
    """Numbers of the prompts that got more than one text."""
    texts: dict[int, set[str]] = {}
    for sample in samples:
        texts.setdefault(sample.trial.prompt, set()).add(sample.text)
    return sorted(prompt for prompt, seen in texts.items() if len(seen) > 1)
