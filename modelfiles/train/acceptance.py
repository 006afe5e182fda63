"""How many drafts a target's own answers would have accepted, counted as a runtime counts.

Drafts run freely, by the centroid head and the drafter's own recurrence, from real round starts:
a round starts at the last emitted token, and the next one after the accepted drafts and one token
of the target. A draft is accepted when it is the token the target said, best or sampled, which is
exact for any sampler ("sample at each row, keep while equal"). Drafts past the end of an answer
are not counted, so that tokens per round include short last rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.attention import ropes
from train.drafting import free_drafts, read_rows, starts_at
from train.model import Drafter, Target
from train.shapes import PAD

DEPTH = 6
SCORES = 1 << 26  # attention scores per head that one batch may hold


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt's tokens and the target's answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def right_drafts(target: Target, drafter: Drafter, texts: Sequence[Answered]) -> list[list[int]]:
    """Return, for each answer, how many drafts in a row are right from each of its tokens."""
    found: list[list[int]] = [[] for _ in texts]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].prompt) + len(texts[i].answer))
    at = 0
    while at < len(order):
        longest = len(texts[order[min(at + 255, len(order) - 1)]].prompt) + 160
        group = order[at : at + max(1, min(256, SCORES // longest**2))]
        counts = _group(target, drafter, [texts[i] for i in group])
        for index, runs in zip(group, counts, strict=True):
            found[index] = runs
        at += len(group)
    return found


def _group(target: Target, drafter: Drafter, texts: Sequence[Answered]) -> list[list[int]]:
    device = target.model.embed_tokens.weight.device
    ends = [len(t.prompt) + len(t.answer) for t in texts]
    width = -(-(max(ends) + DEPTH) // 64) * 64
    rows = [
        [*t.prompt, *t.answer] + [PAD] * (width - end) for t, end in zip(texts, ends, strict=True)
    ]
    tokens, limits = torch.tensor(rows).to(device), torch.tensor(ends).to(device)
    positions = torch.arange(width, device=device)
    documents = (positions >= limits[:, None]).int()
    reading = read_rows(target, tokens, documents, ropes(target.shape, positions))
    most = max(len(t.answer) for t in texts)
    first = torch.tensor([len(t.prompt) for t in texts]).to(device)
    places = first[:, None] + torch.arange(most, device=device)
    places = places.minimum(limits[:, None] - 1)
    starts = starts_at(target, reading, documents, places)
    drafts = free_drafts(target, drafter, reading, starts, DEPTH)
    return _runs(tokens, limits, places, drafts, [len(t.answer) for t in texts])


def _runs(
    tokens: Tensor, limits: Tensor, places: Tensor, drafts: Tensor, lengths: list[int]
) -> list[list[int]]:
    """Return how many of the drafts [batch, starts, depth] come true in a row at each place."""
    ahead = places[..., None] + torch.arange(1, drafts.shape[-1] + 1, device=places.device)
    inside = ahead < limits[:, None, None]
    said = (
        tokens[:, None]
        .expand(-1, places.shape[1], -1)
        .gather(2, ahead.clamp_max(tokens.shape[1] - 1))
    )
    runs = ((drafts == said) & inside).long().cumprod(-1).sum(-1).tolist()
    return [row[:length] for row, length in zip(runs, lengths, strict=True)]


def figures(runs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return conditional and cumulative acceptance by position and tokens per round by depth."""
    rounds = [tuple(_played(runs, depth)) for depth in range(1, DEPTH + 1)]
    offered, accepted = [0] * DEPTH, [0] * DEPTH
    for taken, possible in rounds[-1]:
        for position in range(min(taken + 1, possible)):
            offered[position] += 1
            accepted[position] += position < taken
    shares = [a / o if o else 0.0 for a, o in zip(accepted, offered, strict=True)]
    cumulative = [float(torch.tensor(shares[: i + 1]).prod()) for i in range(DEPTH)]
    emitted = sum(len(row) - 1 for row in runs if row)
    return {
        "conditional": [round(x, 4) for x in shares],
        "cumulative": [round(x, 4) for x in cumulative],
        "tokens_per_round": {
            str(depth): round(emitted / max(1, len(played)), 3)
            for depth, played in enumerate(rounds, start=1)
        },
        "answers": len(runs),
        "rounds_at_depth_6": len(rounds[-1]),
    }


def _played(runs: Sequence[Sequence[int]], depth: int) -> list[tuple[int, int]]:
    """Return (accepted, offered) drafts of every round of every answer at that depth."""
    rounds = []
    for row in runs:
        at, last = 0, len(row) - 1
        while at < last:
            possible = min(depth, last - at)
            taken = min(row[at], possible)
            rounds.append((taken, possible))
            at += taken + 1
    return rounds
