"""Which drafts stay: what the target chooses at each row, and how far the drafts agree with it.

Two ways to choose, both exact:

- by the row alone: the target draws y from p, the draft x stays if x = y. It stays with
  probability p(x), and given that it does not, y is drawn from p without x: the rule for a point
  mass, whatever way x was found, because y never depends on it.
- by ratio, for x drawn from q on its own: x stays with probability min(1, p(x) / q(x)), else y is
  drawn from max(p - q, 0), which gives x no chance; so here too x stays exactly if x = y.
"""

import torch
from torch import Tensor

from gemmarunner.engine.propose import Proposal
from gemmarunner.engine.sampling import Kept, Sampler, Stream


def choose(
    sampler: Sampler, logits: Tensor, proposal: Proposal, history: Tensor | None, position: int
) -> Tensor:
    """The token [depth + 1] int64 each verified row chooses, row 0's being at index `position`.

    `logits` [depth + 1, vocab] is overwritten; `history` ends with the last draft. Row i counts
    only when all drafts before it stay.
    """
    if not proposal.kept:
        return sampler.choose(logits, history, position)
    return choose_by_ratio(sampler, sampler.kept(logits, history), proposal, position)


def choose_by_ratio(sampler: Sampler, target: Kept, proposal: Proposal, position: int) -> Tensor:
    """The draft where it stays, its replacement where not, and a last token drawn from the target.

    NOTE: works on dense rows, so its price grows with the vocabulary.
    """
    drafts = torch.cat(proposal.tokens)
    p = target.dense(sampler.vocab)  # [depth + 1, vocab]
    q = torch.cat([kept.dense(sampler.vocab) for kept in proposal.kept])  # [depth, vocab]
    p_draft = p[:-1].gather(1, drafts[:, None])
    q_draft = q.gather(1, drafts[:, None])
    luck = Kept(drafts[:, None], p_draft)
    uniform = sampler.noise(luck, position, Stream.ACCEPT).exp()
    stays = (uniform * q_draft <= p_draft).squeeze(1)
    leftover = torch.cat(((p[:-1] - q).clamp_min_(0), p[-1:]))
    replacements = sampler.draw(Kept(None, leftover), position, Stream.RESIDUAL)
    return torch.cat((torch.where(stays, drafts, replacements[:-1]), replacements[-1:]))


def agreed(drafts: list[int], chosen: list[int]) -> list[int]:
    """The new text: the drafts that stay and the one token the target adds after them."""
    kept = 0
    while kept < len(drafts) and drafts[kept] == chosen[kept]:
        kept += 1
    return chosen[: kept + 1]
