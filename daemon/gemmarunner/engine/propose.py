"""The drafts of one round: K drafter steps from the last token and the hidden row that made it."""

from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import Candidates, Drafter
from gemmarunner.engine.sampling import Kept, Sampler, Stream


class DraftKind(StrEnum):
    """How a sampled request's drafts are drawn; a greedy request's are always the likeliest.

    With p the target's and q the drafter's processed distribution, a draft survives with
    probability p(argmax q) when ARGMAX and sum min(p, q) when SAMPLED. A COUPLED draft is drawn
    from q with the very noise the target will draw with: it survives with at least (1-d)/(1+d),
    d the total variation between p and q. Text of ARGMAX and COUPLED rounds is the text of plain
    decoding with the same seed; SAMPLED only has the same distribution.
    """

    ARGMAX = "argmax"
    SAMPLED = "sampled"
    COUPLED = "coupled"


class Proposal(NamedTuple):
    """What a drafter guessed."""

    tokens: tuple[Tensor, ...]  # depth times [1] int64
    kept: tuple[Kept, ...]  # what each was drawn from; only for DraftKind.SAMPLED


class Draw(NamedTuple):
    """One draft and what it was drawn from."""

    token: Tensor  # [1] int64
    kept: Kept | None


NOTHING = Proposal((), ())


def propose(
    drafter: Drafter,
    cache: KVCache,
    sampler: Sampler,
    kind: DraftKind,
    *,
    depth: int,
    token: Tensor,
    hidden: Tensor,
    history: Tensor | None,
    position: int,
) -> Proposal:
    """`depth` guesses of what follows `token` [1]; the first is for index `position` of the text.

    `hidden` [1, hidden] is the target row that chose `token`; `history` ends with `token`.
    """
    context = drafter.prepare(cache)
    draws = []
    for index in range(depth):
        normed, hidden = drafter.step(token, hidden, context)
        candidates = drafter.candidates(normed)
        draws.append(_draw(candidates, sampler, kind, history, position + index))
        token = draws[-1].token
        if history is not None:
            history = torch.cat((history, token))
    kept = tuple(draw.kept for draw in draws if draw.kept is not None)
    return Proposal(tuple(draw.token for draw in draws), kept)


def _draw(
    candidates: Candidates,
    sampler: Sampler,
    kind: DraftKind,
    history: Tensor | None,
    position: int,
) -> Draw:
    ids, logits = candidates.ids, candidates.logits[None]
    if sampler.greedy or kind is DraftKind.ARGMAX:
        column = sampler.processed(logits, history, ids).argmax(-1)
        return Draw(column if ids is None else ids[column], None)
    if kind is DraftKind.COUPLED:
        return Draw(sampler.guess(logits, history, ids, position), None)
    kept = sampler.kept(logits, history, ids)
    return Draw(sampler.draw(kept, position, Stream.DRAFT), kept)
