"""One draft-verify-accept round of one sequence."""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.accept import agreed, choose
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import Drafter, Target
from gemmarunner.engine.propose import NOTHING, DraftKind, propose
from gemmarunner.engine.sampling import Sampler


class Pair(NamedTuple):
    """What a round runs."""

    target: Target
    drafter: Drafter | None
    kind: DraftKind


class Round(NamedTuple):
    """What a round added to the text."""

    tokens: list[int]  # one to depth + 1
    hidden: Tensor  # [1, hidden]; the row that chose the last of them


def run_round(
    pair: Pair,
    cache: KVCache,
    sampler: Sampler,
    tokens: list[int],
    hidden: Tensor,
    depth: int,
    width: int = 0,
) -> Round:
    """Extends the text `tokens`, whose last token is not in `cache` yet, by 1 to depth + 1 tokens.

    `hidden` [1, hidden] is the row that chose the last token. Afterwards `cache` holds the whole
    new text but its last token; rejected drafts are gone from it. The target runs `width` rows at
    least: rows of junk follow the drafts, are seen by none of them, and are thrown away.
    """
    assert cache.length == len(tokens) - 1
    history = sampler.history(tokens)
    seed = torch.tensor(tokens[-1:], dtype=torch.int64, device=hidden.device)
    proposal = NOTHING
    if depth and pair.drafter is not None:
        proposal = propose(
            pair.drafter,
            cache,
            sampler,
            pair.kind,
            depth=depth,
            token=seed,
            hidden=hidden,
            history=history,
            position=len(tokens),
        )
    rows = torch.cat((seed, *proposal.tokens))
    junk = rows.new_zeros(max(0, width - len(rows)))
    hidden_rows = pair.target.forward(torch.cat((rows, junk)), cache)
    logits = pair.target.logits(hidden_rows)[: len(rows)]
    if history is not None:
        history = torch.cat((history, rows[1:]))
    chosen = choose(sampler, logits, proposal, history, len(tokens))
    found = torch.cat((rows[1:], chosen)).tolist()  # the round's one wait for the device
    new = agreed(found[: len(rows) - 1], found[len(rows) - 1 :])
    cache.truncate(len(tokens) - 1 + len(new))
    return Round(new, hidden_rows[len(new) - 1 : len(new)])
