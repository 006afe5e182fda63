"""One draft-verify-accept round of one sequence, or of several that share the target's matrices."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.accept import agreed, choose
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import Drafter, Target
from gemmarunner.engine.propose import NOTHING, DraftKind, Proposal, propose
from gemmarunner.engine.sampling import Sampler

# Rows of one product with the head: up to so many, a float32 row on an x86 CPU is what it is alone.
_HEAD_ROWS: Final = 32


class Pair(NamedTuple):
    """What a round runs."""

    target: Target
    drafter: Drafter | None
    kind: DraftKind


class Round(NamedTuple):
    """What a round added to the text."""

    tokens: list[int]  # one to depth + 1
    hidden: Tensor  # [1, hidden]; the row that chose the last of them


class Turn(NamedTuple):
    """What one sequence brings into a round."""

    cache: KVCache  # holds all of `tokens` but the last
    sampler: Sampler
    tokens: list[int]
    hidden: Tensor  # [1, hidden]; the row that chose the last token
    depth: int


class _Guess(NamedTuple):
    """What the target is to verify of one sequence."""

    rows: Tensor  # [1 + depth] int64: the last token and the drafts
    proposal: Proposal
    history: Tensor | None  # with the drafts


def run_round(
    pair: Pair,
    cache: KVCache,
    sampler: Sampler,
    tokens: list[int],
    hidden: Tensor,
    depth: int,
    width: int = 0,
) -> Round:
    """Extends the text `tokens` of one sequence; see `run_rounds`."""
    return run_rounds(pair, [Turn(cache, sampler, tokens, hidden, depth)], width)[0]


def run_rounds(pair: Pair, turns: Sequence[Turn], width: int = 0) -> list[Round]:
    """Extends each turn's text, whose last token is not in its cache, by 1 to depth + 1 tokens.

    The drafts of all are verified together. Afterwards each cache holds its whole new text but the
    last token; rejected drafts are gone from it. The target runs `width` rows a sequence at least:
    rows of junk follow the drafts, are seen by none of them, and are thrown away.
    """
    guesses = [_guess(pair, turn) for turn in turns]
    hidden = _verified(pair.target, turns, [guess.rows for guess in guesses], width)
    counts = [len(guess.rows) for guess in guesses]
    logits = torch.split(_logits(pair.target, torch.cat(hidden)), [len(rows) for rows in hidden])
    chosen = [
        choose(turn.sampler, rows[:count], guess.proposal, guess.history, len(turn.tokens))
        for turn, rows, guess, count in zip(turns, logits, guesses, counts, strict=True)
    ]
    drafts = [guess.rows[1:] for guess in guesses]
    found = torch.cat((*drafts, *chosen)).tolist()  # the round's one wait for the device
    return _agreements(turns, hidden, counts, found)


def _guess(pair: Pair, turn: Turn) -> _Guess:
    tokens, sampler, depth = turn.tokens, turn.sampler, turn.depth
    assert turn.cache.length == len(tokens) - 1
    history = sampler.history(tokens)
    seed = torch.tensor(tokens[-1:], dtype=torch.int64, device=turn.hidden.device)
    proposal = NOTHING
    if depth and pair.drafter is not None:
        proposal = propose(
            pair.drafter,
            turn.cache,
            sampler,
            pair.kind,
            depth=depth,
            token=seed,
            hidden=turn.hidden,
            history=history,
            position=len(tokens),
        )
    rows = torch.cat((seed, *proposal.tokens))
    if history is not None:
        history = torch.cat((history, rows[1:]))
    return _Guess(rows, proposal, history)


def _verified(
    target: Target, turns: Sequence[Turn], rows: list[Tensor], width: int
) -> list[Tensor]:
    """The target's hidden rows [rows, hidden] for each turn's `rows` and what fills its width."""
    wide = [torch.cat((part, part.new_zeros(max(0, width - len(part))))) for part in rows]
    if len(turns) == 1:
        return [target.forward(wide[0], turns[0].cache)]
    return target.forward_many(wide, [turn.cache for turn in turns])


def _logits(target: Target, hidden: Tensor) -> Tensor:
    """Scores [rows, vocab] of all rows of all sequences."""
    if len(hidden) <= _HEAD_ROWS:
        return target.logits(hidden)
    return torch.cat([target.logits(part) for part in torch.split(hidden, _HEAD_ROWS)])


def _agreements(
    turns: Sequence[Turn], hidden: list[Tensor], counts: list[int], found: list[int]
) -> list[Round]:
    """Commits what stays; `found` holds the drafts of all turns, then what their rows chose."""
    rounds = []
    draft, choice = 0, sum(counts) - len(counts)
    for turn, rows, count in zip(turns, hidden, counts, strict=True):
        new = agreed(found[draft : draft + count - 1], found[choice : choice + count])
        draft, choice = draft + count - 1, choice + count
        turn.cache.truncate(len(turn.tokens) - 1 + len(new))
        rounds.append(Round(new, rows[len(new) - 1 : len(new)]))
    return rounds
