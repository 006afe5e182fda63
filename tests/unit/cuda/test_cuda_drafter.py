"""The drafter on fused operators guesses what the plain one guesses, for several sequences."""

import pytest
import torch

from gemmad.api.errors import PairMismatch
from gemmarunner.cuda.drafter import CudaDrafter
from gemmarunner.cuda.prompts import PromptGraphs
from gemmarunner.cuda.slots import Slots
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.kernels.rows import Rows
from tests.unit.cuda.cuda_pairs import TOLERANCE, Pairs, text

LENGTHS = (3, 8, 90)  # short, one window, past the window


def test_cuda_draft_steps_equal_the_plain_drafter(pair: Pairs) -> None:
    """Four recurrent steps of three sequences at once, after rejected rows; both heads."""
    target, drafter, device = pair.target, pair.drafter, pair.target.device
    slots = Slots(target.config, 3, 128, device, target.dtype)
    contexts, hidden = [], []
    for slot, length in enumerate(LENGTHS):
        cache = KVCache(target.config, 128, 96, device, target.dtype)
        hidden.append(pair.plain.forward(torch.tensor(text(length)), cache)[-1:])
        contexts.append(pair.plain_drafter.prepare(cache))
        PromptGraphs(target, slots, 64)(slot, text(length))
    starts = torch.tensor(LENGTHS, dtype=torch.int32)
    target.step(torch.tensor(text(9)), Rows(torch.arange(3, dtype=torch.int32), starts, 3), slots)
    rows, ours = Rows(torch.arange(3, dtype=torch.int32), starts, 1), torch.cat(hidden)
    for token in text(4, 5):
        normed = drafter.step(torch.tensor([token] * 3), ours, rows, slots)
        ours, (logits, ids) = drafter.next_hidden(normed), drafter.scores(normed)
        for index, context in enumerate(contexts):
            plain, hidden[index] = pair.plain_drafter.step(
                torch.tensor([token]), hidden[index], context
            )
            guess = pair.plain_drafter.candidates(plain)

            torch.testing.assert_close(ours[index], hidden[index][0], **TOLERANCE)
            own = dense(logits[index], None if ids is None else ids[index])
            torch.testing.assert_close(own, dense(guess.logits, guess.ids), **TOLERANCE)


def dense(logits: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
    """Scores of the whole vocabulary; -1000 for what was not scored."""
    return logits if ids is None else torch.full((128,), -1000.0).scatter(0, ids, logits)


def test_cuda_foreign_drafter_is_refused(pair_of) -> None:
    """A drafter of another size names what differs."""
    with pytest.raises(PairMismatch, match=r"K/V heads of sliding layers"):
        CudaDrafter(pair_of("e4b").plain_drafter.config, None, pair_of("e2b").target)  # type: ignore[arg-type]
