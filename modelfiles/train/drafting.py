"""The drafter at work on known text: its steps from many starts at once, forced or free."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from train.attention import Masks, Rope, dense_masks, draft_masks, ropes
from train.model import Decoded, Drafter, KeysValues, Target, softcapped
from train.shapes import LayerType


class Starts(NamedTuple):
    """What stays the same over the steps of a round, for many rounds at once."""

    places: Tensor  # [batch, starts]: position of the last committed token
    tables: dict[LayerType, Rope]
    masks: Masks
    donors: dict[LayerType, KeysValues]


class Reading(NamedTuple):
    """A target's reading of rows of text, and the rows."""

    tokens: Tensor  # [batch, positions]
    decoded: Decoded


@torch.no_grad()
def read_rows(
    target: Target, tokens: Tensor, documents: Tensor, tables: dict[LayerType, Rope]
) -> Reading:
    """Return the frozen target's hidden states, keys and values for the rows."""
    dtype = target.model.embed_tokens.weight.dtype
    masks = dense_masks(documents, target.shape.window)
    return Reading(tokens, target.model(tokens, tables, masks, dtype))


def starts_at(target: Target, reading: Reading, documents: Tensor, places: Tensor) -> Starts:
    """Return the constant part of rounds from `places`: one position, the keys before it."""
    tables = {
        kind: Rope(table.cos[:, None], table.sin[:, None])
        for kind, table in ropes(target.shape, places).items()
    }
    masks = draft_masks(documents, places, target.shape.window)
    return Starts(places, tables, masks, reading.decoded.donors)


def picked(values: Tensor, places: Tensor) -> Tensor:
    """Return `values` [batch, positions, width] at `places` [batch, starts]."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def first_hidden(reading: Reading, starts: Starts) -> Tensor:
    """Return the hidden states of the rows that produced each start's token."""
    return picked(reading.decoded.hidden, (starts.places - 1).clamp_min(0))


@torch.no_grad()
def free_drafts(
    target: Target, drafter: Drafter, reading: Reading, starts: Starts, depth: int
) -> Tensor:
    """Return what the drafter drafts by itself from every start, [batch, starts, depth] i64."""
    hidden = first_hidden(reading, starts)
    token = reading.tokens.gather(1, starts.places)
    drafts = []
    for _ in range(depth):
        embedded = target.model.embed(token, hidden.dtype)
        hidden, normed = drafter(embedded, hidden, starts.tables, starts.masks, starts.donors)
        token = drafter.draft(normed)
        drafts.append(token)
    return torch.stack(drafts, dim=-1)


def draft_losses(
    normed: Tensor,
    head: Tensor,
    centroids: Tensor,
    teacher_hidden: Tensor,
    teacher_head: Tensor,
    membership: Tensor,
    cap: float,
) -> tuple[Tensor, Tensor]:
    """Return (KL divergence, cross entropy over clusters) of every draft, each [...] f32.

    The teacher's distribution is the target's own at temperature 1; `membership` [vocab, clusters]
    is one-hot and sums it to the masses of the clusters.
    """
    dtype = normed.dtype
    teacher = softcapped(F.linear(teacher_hidden, teacher_head).float(), cap)
    wanted = teacher.log_softmax(dim=-1)
    shares = wanted.exp()
    drafted = F.linear(normed, head.to(dtype)).float().log_softmax(dim=-1)
    divergence = (shares * (wanted - drafted)).sum(-1)
    masses = (shares.to(dtype) @ membership).float()
    coarse = F.linear(normed, centroids.to(dtype)).float().log_softmax(dim=-1)
    return divergence, -(masses * coarse).sum(-1)
