"""Block masks, dense masks and the two ways to attend say the same."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask, flex_attention

from train.attention import attend, block_masks, dense_masks, draft_masks

WINDOW = 200


def documents() -> torch.Tensor:
    """Three rows: one document, borders on and off the blocks, many short documents."""
    places = torch.arange(512)
    rows = [torch.zeros(512), (places >= 128).int() + (places >= 300).int(), places // 17]
    return torch.stack([row.int() for row in rows])


def whole_mask(mask: object, rows: int, length: int) -> torch.Tensor:
    """Return the boolean mask that a block mask lets through, blocks and rule together."""
    seen = create_mask(mask.mask_mod, rows, None, length, length, device="cpu")
    blocks = mask.to_dense().bool()
    return seen & blocks.repeat_interleave(128, -1).repeat_interleave(128, -2)


def test_block_masks_let_through_what_dense_masks_do() -> None:
    """No needed block is left out, for both kinds of layer."""
    dense, blocks = dense_masks(documents(), WINDOW), block_masks(documents(), WINDOW)

    for kind in (0, 1):
        assert torch.equal(dense[kind], whole_mask(blocks[kind], 3, 512))


def test_whole_blocks_are_wholly_seen() -> None:
    """A block marked as needing no rule holds no pair that the rule forbids."""
    dense, blocks = dense_masks(documents(), WINDOW), block_masks(documents(), WINDOW)
    for seen, mask in zip(dense, blocks, strict=True):
        count, order = mask.full_kv_num_blocks, mask.full_kv_indices
        for row, query in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
            for key in order[row, 0, query, : count[row, 0, query]].tolist():
                block = seen[row, 0, query * 128 : query * 128 + 128, key * 128 : key * 128 + 128]
                assert block.all()
    assert blocks.full.full_kv_num_blocks.sum() > 0


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attending_with_block_masks_equals_attending_with_dense_masks() -> None:
    """Four query heads on one key head, by blocks and by the plain product."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, heads, 512, 16) for heads in (4, 1, 1))
    dense, blocks = dense_masks(documents(), WINDOW), block_masks(documents(), WINDOW)
    for kind in (0, 1):
        by_blocks = flex_attention(q, k, v, block_mask=blocks[kind], scale=1.0, enable_gqa=True)

        torch.testing.assert_close(by_blocks, attend(q, k, v, dense[kind]), atol=1e-5, rtol=1e-5)


def test_few_queries_attend_as_many_do() -> None:
    """The written-out product for few queries gives the rows that attention over all gives."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, heads, 512, 16) for heads in (4, 1, 1))
    mask = dense_masks(documents(), WINDOW).sliding
    few = attend(q[:, :, 100:140], k, v, mask[:, :, 100:140])

    torch.testing.assert_close(few, attend(q, k, v, mask)[:, :, 100:140], atol=1e-5, rtol=1e-5)


def test_drafts_see_the_window_before_their_start() -> None:
    """From place p: the last `window` keys before p on sliding layers, all of them on full ones."""
    row = torch.zeros(1, 512, dtype=torch.int32)
    masks = draft_masks(row, torch.tensor([[300]]), WINDOW)

    assert masks.sliding[0, 0, 0].nonzero()[:, 0].tolist() == list(range(100, 300))
    assert masks.full[0, 0, 0].nonzero()[:, 0].tolist() == list(range(300))


def test_drafts_see_nothing_of_other_documents() -> None:
    """A start sees its own document only, and itself if it is the first token."""
    row = (torch.arange(512) >= 128).int()[None]
    masks = draft_masks(row, torch.tensor([[130, 128]]), WINDOW)

    assert masks.full[0, 0, 0].nonzero()[:, 0].tolist() == [128, 129]
    assert masks.full[0, 0, 1].nonzero()[:, 0].tolist() == [128]
