"""Our drafter guesses what transformers' assistant guesses from the committed keys and values."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gemmad.api.errors import PairMismatch
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.config import check_pair

WINDOW = 8
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def tokens(count: int) -> Tensor:
    return torch.randint(0, 128, (count,), generator=torch.Generator().manual_seed(5))


def committed(oracle, ids: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """The donors' keys and values a drafter may see, and the final hidden rows."""
    out = oracle.target.model(ids[None], return_shared_kv_states=True, use_cache=False)
    cropped = dict(out.shared_kv_states)
    keys, values = cropped["sliding_attention"]
    cropped["sliding_attention"] = keys[:, :, -WINDOW:], values[:, :, -WINDOW:]
    return cropped, out.last_hidden_state


def oracle_steps(oracle, ids: Tensor, drafts: Tensor, position: int) -> list[tuple[Tensor, Tensor]]:
    """Logits and next hidden row of each step, fed the same tokens at a constant position."""
    shared, hidden = committed(oracle, ids)
    hidden, steps = hidden[:, -1:], []
    for token in drafts:
        embedded = oracle.target.model.embed_tokens(token[None, None])
        out = oracle.assistant(
            inputs_embeds=torch.cat((embedded, hidden), -1),
            position_ids=torch.tensor([[position]]),
            shared_kv_states=shared,
        )
        hidden = out.last_hidden_state
        steps.append((out.logits[0, 0], hidden[0]))
    return steps


@pytest.mark.parametrize("length", [3, 8, 90], ids=["short", "one window", "past the window"])
@pytest.mark.parametrize("last_written", [False, True], ids=["len-1", "len-2"])
@torch.inference_mode()
def test_steps_equal_transformers(pair, length, last_written) -> None:
    """Four recurrent steps, after a rejected draft, at either constant position, both heads."""
    ids, drafts = tokens(length), tokens(4)
    cache = KVCache(pair.target.config, 128, 96, pair.target.device, pair.target.dtype)
    hidden = pair.target.forward(ids, cache)[-1:]
    pair.target.forward(tokens(6), cache)
    cache.truncate(length)
    position = length - 1 if last_written else length
    expected = oracle_steps(pair.oracle, ids, drafts, position)

    pair.drafter.from_last_written = last_written
    context = pair.drafter.prepare(cache)
    for token, (logits, next_hidden) in zip(drafts, expected, strict=True):
        normed, hidden = pair.drafter.step(token[None], hidden, context)
        guess = pair.drafter.candidates(normed)

        seen = logits if guess.ids is None else logits[guess.ids]
        torch.testing.assert_close(hidden, next_hidden, **TOLERANCE)
        torch.testing.assert_close(guess.logits, seen, **TOLERANCE)
        assert guess.logits.max() >= logits.max() - 1e-4  # no better token was left out
    pair.drafter.from_last_written = False


def test_centroid_head_scores_only_the_chosen_clusters(pair_of: Callable) -> None:
    """Four clusters of eight tokens, each token once."""
    drafter = pair_of("e4b").drafter
    guess = drafter.candidates(torch.randn(1, 32, generator=torch.Generator().manual_seed(0)))

    assert guess.ids is not None
    assert len(set(guess.ids.tolist())) == 32 == len(guess.logits)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": 96}, ("backbone_hidden_size", "96", "64")),
        ({"vocab_size": 512}, ("vocab_size", "512", "128")),
        ({"window": 4}, ("sliding_window", "4", "8")),
    ],
)
def test_foreign_drafter_is_refused(pair_of: Callable, change, words) -> None:
    """The message names what differs and both values."""
    pair = pair_of("e2b")
    with pytest.raises(PairMismatch) as caught:
        check_pair(pair.target.config, replace(pair.drafter.config, **change))

    assert all(word in str(caught.value) for word in words)


def test_foreign_kv_heads_are_refused(pair_of: Callable) -> None:
    """Same widths, other K/V heads: the drafter of another size."""
    with pytest.raises(PairMismatch, match=r"K/V heads of sliding layers is 2 .* and 1"):
        pair_of("e4b").drafter.__class__.bind(pair_of("e4b").drafter, pair_of("e2b").target)
