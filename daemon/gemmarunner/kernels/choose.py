"""From rows of logits to tokens, for many requests at once and without waiting for the device.

The same cuts, tie rules and noise as `engine.sampling.Sampler.choose`: see there for their order.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.engine.request import Sampling
from gemmarunner.kernels.launch import on_gpu
from gemmarunner.kernels.noise import log_uniform

MAX_TOP_K = 128
MAX_LIST = 1024  # candidates a row may have before it must be chosen elsewhere
GUESSED = 64  # a draft beyond the drafter's 64 likeliest would hardly ever stay


class Choosing(NamedTuple):
    """How each of B sequences chooses its tokens; every tensor is [B] on the device."""

    temperature: Tensor  # f32; 0 = the likeliest
    top_k: Tensor  # int32; 1..MAX_TOP_K
    top_p: Tensor  # f32
    min_p: Tensor  # f32
    key: Tensor  # int64; of the request's stream of noise for choices
    position: Tensor  # int32; the text index of the token that a sequence's first row chooses


def fits(sampling: Sampling) -> bool:
    """Whether `choose` gives this request's tokens: it has few enough candidates."""
    return sampling.temperature <= 0 or 1 <= sampling.top_k <= MAX_TOP_K


def choose(
    logits: Tensor, how: Choosing, per: int, suppressed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Tokens [R] int64, and [B] bool: a sequence whose tokens must be chosen by the slow path.

    `logits` [R, V] f32 hold `per` rows of each sequence; `suppressed` int64 ids get no chance. A
    row overflows when more than `MAX_LIST` columns come close to its top_k-th.
    """
    if not on_gpu(logits):
        return choose_slow(logits, how, per, suppressed)
    from gemmarunner.kernels.choose_triton import launch_choose

    return launch_choose(logits, how, per, suppressed)


def choose_slow(
    logits: Tensor, how: Choosing, per: int, suppressed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same in plain torch; its rows never overflow."""
    if suppressed is not None:
        logits = logits.index_fill(-1, suppressed, -torch.inf)
    every = Choosing(*(field.repeat_interleave(per) for field in how))
    offset = torch.arange(per, device=logits.device, dtype=torch.int32).repeat(len(how.key))
    columns = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape)
    tokens = _race(logits, columns, every, every.position + offset, MAX_TOP_K)
    return tokens, torch.zeros_like(how.key, dtype=torch.bool)


def draft(
    logits: Tensor,
    ids: Tensor | None,
    how: Choosing,
    offset: int,
    suppressed: Tensor | None = None,
) -> Tensor:
    """A guess [B] int64 of what `choose` will choose `offset` tokens after `how.position`.

    `logits` [B, C] f32 of tokens `ids` [B, C] int64 (None: the column is the token, and
    `suppressed` ids get no chance). Sees `GUESSED` candidates at most.
    """
    if not on_gpu(logits):
        return draft_slow(logits, ids, how, offset, suppressed)
    from gemmarunner.kernels.choose_triton import launch_draft

    return launch_draft(logits, ids, how, offset, suppressed)


def draft_slow(
    logits: Tensor,
    ids: Tensor | None,
    how: Choosing,
    offset: int,
    suppressed: Tensor | None = None,
) -> Tensor:
    """The same in plain torch."""
    if ids is None:
        ids = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape)
        if suppressed is not None:
            logits = logits.index_fill(-1, suppressed, -torch.inf)
    return _race(logits, ids, how, how.position + offset, GUESSED)


def _race(logits: Tensor, ids: Tensor, how: Choosing, place: Tensor, most: int) -> Tensor:
    """The token [R] each row of `logits` [R, C] of tokens `ids` draws; all else is by row too."""
    greedy = (how.temperature <= 0) | (how.top_k == 1)
    rows = logits / how.temperature.where(~greedy, 1.0)[:, None]
    values, column = rows.sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(-1, column)
    last = how.top_k.clamp(1, min(most, logits.shape[1])).long()[:, None] - 1
    values = values.masked_fill(values < values.gather(-1, last), -torch.inf)
    weights = _cut(values, how.top_p[:, None], how.min_p[:, None])
    fastest = (weights / log_uniform(how.key, place, ids)).argmin(-1, keepdim=True)
    return ids.gather(-1, fastest.where(~greedy[:, None], 0)).squeeze(-1)


def _cut(values: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Probabilities of descending `values` [R, C], 0 where top_p or min_p leaves no chance.

    The mass is summed in f64 and rounded, so that the edge does not hang on the order of the sum.
    """
    weights = values.double().softmax(-1).float()
    before = weights.double().cumsum(-1).float() - weights
    dropped = (before >= top_p.clamp(min=1e-9)) & (top_p < 1)
    last = weights.masked_fill(dropped, torch.inf).amin(-1, keepdim=True)
    last = torch.maximum(last, min_p * weights[:, :1])
    return weights.masked_fill(weights < last, 0.0)
