"""The target on fused operators says what the plain one says, however rows and slots are cut."""

import pytest
import torch
from torch import Tensor

from gemmarunner.cuda.prompts import PromptGraphs
from gemmarunner.cuda.slots import Slots
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.kernels.rows import Rows
from tests.unit.cuda.cuda_pairs import TOLERANCE, Pairs, text

LENGTH = 150  # past the window of 8, and around the sliding ring of 128 positions


def expected_hidden(pair: Pairs, ids: list[int]) -> Tensor:
    """Final hidden rows of all tokens, by the plain decoder."""
    cache = KVCache(pair.plain.config, 256, 256, pair.plain.device, pair.plain.dtype)
    return pair.plain.forward(torch.tensor(ids), cache)


def new_slots(pair: Pairs, count: int = 1) -> Slots:
    target = pair.target
    return Slots(target.config, count, 256, target.device, target.dtype)


def rows_at(slots: list[int], starts: list[int], per: int) -> Rows:
    return Rows(*(torch.tensor(x, dtype=torch.int32) for x in (slots, starts)), per)


def read(pair: Pairs, slots: Slots, slot: int, ids: list[int], chunk: int) -> Tensor:
    """The last row's hidden after reading `ids` in chunks."""
    for begin in range(0, len(ids), chunk):
        tail = PromptGraphs(pair.target, slots, chunk)(slot, ids[begin : begin + chunk])
    return pair.target.finish(tail, slots)


@pytest.mark.parametrize("chunk", [7, 40, LENGTH])
def test_cuda_prompt_equals_the_plain_decoder(pair: Pairs, chunk: int) -> None:
    """The last row of a prompt in chunks shorter and longer than the window."""
    ids = text(LENGTH)
    hidden = expected_hidden(pair, ids)[-1:]

    ours = read(pair, new_slots(pair), 0, ids, chunk)

    torch.testing.assert_close(ours, hidden, **TOLERANCE)
    logits = pair.plain.logits(hidden)
    torch.testing.assert_close(pair.target.logits(ours), logits, **TOLERANCE)


def test_cuda_steps_of_unlike_slots_equal_the_plain_decoder(pair: Pairs) -> None:
    """Three sequences of other lengths in one step, over and over, past the ring's end."""
    texts, starts, per = [text(LENGTH, seed) for seed in (1, 2, 3)], [1, 9, 40], 5
    slots, order = new_slots(pair, 4), [2, 0, 3]
    expected = [expected_hidden(pair, ids) for ids in texts]
    for slot, ids, start in zip(order, texts, starts, strict=True):
        read(pair, slots, slot, ids[:start], 32)
    while max(starts) + per <= LENGTH:  # the last to start goes around its ring
        ids = [one[start : start + per] for one, start in zip(texts, starts, strict=True)]
        step = pair.target.step(torch.tensor(ids).view(-1), rows_at(order, starts, per), slots)

        wanted = [rows[start : start + per] for rows, start in zip(expected, starts, strict=True)]
        torch.testing.assert_close(step, torch.cat(wanted), **TOLERANCE)
        starts = [start + per for start in starts]


def test_cuda_rejected_rows_leave_no_trace(pair: Pairs) -> None:
    """Rows beyond the committed length change nothing of what follows."""
    ids, wrong, slots = text(LENGTH), text(8, 2), new_slots(pair)
    expected = expected_hidden(pair, ids)
    read(pair, slots, 0, ids[:105], 105)
    for start in range(105, LENGTH - 5, 3):
        pair.target.step(torch.tensor(wrong), rows_at([0], [start], 8), slots)
        step = pair.target.step(
            torch.tensor(ids[start : start + 3]), rows_at([0], [start], 3), slots
        )

        torch.testing.assert_close(step, expected[start : start + 3], **TOLERANCE)
