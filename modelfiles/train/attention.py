"""Attention of the training models: rotary tables, document masks and the two ways to attend."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from train.shapes import FULL, LayerType, TargetShape

BLOCK = 128
FULL_ROTARY_SHARE = 0.25


class Rope(NamedTuple):
    """Cosines and sines, each [..., positions, head_dim] f32."""

    cos: Tensor
    sin: Tensor


class Masks(NamedTuple):
    """What a query may see in each kind of layer: block masks, or boolean tensors."""

    sliding: BlockMask | Tensor
    full: BlockMask | Tensor

    def of(self, kind: LayerType) -> BlockMask | Tensor:
        """Return the mask of layers of that kind."""
        return self.full if kind == FULL else self.sliding


def rope(kind: LayerType, head_dim: int, positions: Tensor) -> Rope:
    """Return the rotary tables of `positions` for layers of that kind.

    Sliding layers rotate all pairs; full layers only the first quarter, at frequencies spaced over
    the whole head ("proportional"). Scores depend on distances alone, so a position may count from
    the start of a packed row as well as from the start of its document.
    """
    theta = 1_000_000.0 if kind == FULL else 10_000.0
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    frequency = theta ** -(pairs / head_dim)
    if kind == FULL:
        rotated = int(FULL_ROTARY_SHARE * head_dim // 2)
        frequency = torch.where(pairs < 2 * rotated, frequency, 0.0)
    angle = positions[..., None].float() * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return Rope(angle.cos(), angle.sin())


def ropes(shape: TargetShape, positions: Tensor) -> dict[LayerType, Rope]:
    """Return the rotary tables of each kind of layer."""
    kinds = sorted(set(shape.layer_types))
    return {kind: rope(kind, shape.head_dim(kind), positions) for kind in kinds}


def rotate(x: Tensor, table: Rope) -> Tensor:
    """Return `x` [..., positions, head_dim] f32 turned by the table."""
    first, second = x.chunk(2, dim=-1)
    return x * table.cos + torch.cat((-second, first), dim=-1) * table.sin


def attend(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask | Tensor) -> Tensor:
    """Return softmax(q kᵀ) v, unscaled as in Gemma 4; shapes [batch, heads, positions, dim]."""
    if isinstance(mask, BlockMask):
        out: Any = flex_attention(q, k, v, block_mask=mask, scale=1.0, enable_gqa=True)
        return out  # type: ignore[no-any-return]
    if q.shape[2] != k.shape[2]:
        return _attend_few(q, k, v, mask)
    heads = q.shape[1]
    k, v = k.expand(-1, heads, -1, -1), v.expand(-1, heads, -1, -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


def _attend_few(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend with few queries to one key/value head, written out so that it compiles well."""
    batch, heads, queries, dim = q.shape
    scores = q.reshape(batch, heads * queries, dim) @ k[:, 0].transpose(-1, -2)
    scores = scores.view(batch, heads, queries, -1).float().masked_fill(~mask, -1e30)
    weights = scores.softmax(dim=-1).to(v.dtype).view(batch, heads * queries, -1)
    return (weights @ v[:, 0]).view(batch, heads, queries, dim)


def dense_masks(documents: Tensor, window: int) -> Masks:
    """Return boolean masks [batch, 1, queries, keys]: causal, within a document, within a window.

    `documents` [batch, positions] numbers the document of every position.
    """
    count = documents.shape[1]
    place = torch.arange(count, device=documents.device)
    distance = place[:, None] - place[None, :]
    same = documents[:, :, None] == documents[:, None, :]
    full = same & (distance >= 0)
    return Masks((full & (distance < window))[:, None], full[:, None])


def block_masks(documents: Tensor, window: int) -> Masks:
    """Return what `dense_masks` returns as block masks; positions must be a multiple of 128.

    The blocks are worked out from the first and last document of each, so that nothing of the size
    of the dense mask is ever made. `documents` must never decrease along a row.
    """
    count = documents.shape[1]
    blocks = count // BLOCK
    first, last = documents[:, ::BLOCK], documents[:, BLOCK - 1 :: BLOCK]
    place = torch.arange(blocks, device=documents.device)
    apart = place[:, None] - place[None, :]
    touching = (apart >= 0) & (last[:, None, :] >= first[:, :, None])
    whole = (apart > 0) & (first[:, None, :] == last[:, :, None])

    def in_full(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (documents[b, q] == documents[b, k])

    def in_window(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (q - k < window) & (documents[b, q] == documents[b, k])

    near = (apart - 1) * BLOCK + 1 < window  # some pair of the two blocks is within the window
    inside = (apart + 1) * BLOCK - 1 < window  # every pair is
    return Masks(
        _blocks(touching & near, whole & inside, in_window),
        _blocks(touching, whole, in_full),
    )


def _blocks(touching: Tensor, whole: Tensor, rule: Any) -> BlockMask:
    """Return the block mask that tests `rule` only in the blocks that are partly seen."""
    partial, whole = touching & ~whole, touching & whole
    return BlockMask.from_kv_blocks(
        *_ordered(partial), *_ordered(whole), BLOCK_SIZE=BLOCK, mask_mod=rule
    )


def _ordered(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks each query block sees and their numbers, the seen ones first."""
    count = seen.sum(-1, dtype=torch.int32)
    order = seen.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return count[:, None], order[:, None].contiguous()


def draft_masks(documents: Tensor, starts: Tensor, window: int) -> Masks:
    """Return what the drafter sees from each start: the keys before it, the last `window` of them.

    `starts` [batch, queries] are positions of the last committed token, whose own keys are not
    written yet. The first token of a document sees itself, so that no row of the mask is empty.
    Shapes [batch, 1, queries, keys].
    """
    place = torch.arange(documents.shape[1], device=documents.device)
    distance = starts[:, :, None] - place
    own = documents.gather(1, starts)
    same = own[:, :, None] == documents[:, None, :]
    before = same & (distance > 0)
    alone = (distance == 0) & ~before.any(-1, keepdim=True)
    sliding = (before & (distance <= window)) | alone
    return Masks(sliding[:, None], (before | alone)[:, None])
