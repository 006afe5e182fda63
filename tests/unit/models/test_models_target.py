"""Our decoder says what transformers' says, for every shape and every way to cut the rows."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from transformers import Gemma4TextConfig, PreTrainedModel
from transformers.models.gemma4.modeling_gemma4 import (
    create_masks_for_vision_model,
    get_block_sequence_ids_for_mask,
)

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.target import SoftRows, Target

LENGTH = 150  # past the window of 8, and past a move of the sliding slots
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def tokens(count: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 128, (count,), generator=torch.Generator().manual_seed(seed))


def oracle_rows(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        out = model(ids[None], output_hidden_states=True)
    return out.hidden_states[-1][0], out.logits[0]


def new_cache(target: Target, max_rows: int = 16, capacity: int = 256) -> KVCache:
    return KVCache(target.config, capacity, max_rows, target.device, target.dtype)


def run(target: Target, cache: KVCache, ids: Tensor, chunks: Sequence[int]) -> Tensor:
    assert sum(chunks) == len(ids)
    return torch.cat([target.forward(part, cache) for part in ids.split(list(chunks))])


@pytest.mark.parametrize(
    "chunks",
    [(LENGTH,), (7, 13, 80, 50), (1,) * LENGTH, (5,) * 30, (40, 1, 9, 2, 7, 1, 30, 3, 57)],
    ids=["one chunk", "chunks", "token by token", "five at a time", "mixed"],
)
def test_hidden_and_logits_equal_transformers(pair, chunks) -> None:
    """However a text is cut into forwards, each row is what one full pass of the oracle gives."""
    ids = tokens(LENGTH)
    hidden, logits = oracle_rows(pair.oracle.target, ids)

    ours = run(pair.target, new_cache(pair.target, max(chunks)), ids, chunks)

    torch.testing.assert_close(ours, hidden, **TOLERANCE)
    torch.testing.assert_close(pair.target.logits(ours), logits, **TOLERANCE)


def test_rejected_rows_leave_no_trace(pair) -> None:
    """Rows that were written and rolled back change nothing of what follows."""
    ids, wrong = tokens(LENGTH), tokens(8, seed=2)
    cache, fresh = new_cache(pair.target, 32), new_cache(pair.target, LENGTH)
    run(pair.target, cache, ids[:20], (20,))
    rows = []
    for begin in range(20, LENGTH, 5):  # five right rows, of which some come after a rejection
        kept = begin % 4
        draft = torch.cat((ids[begin : begin + kept], wrong[: 8 - kept]))
        pair.target.forward(draft, cache)
        cache.truncate(begin + kept)
        rows.append(pair.target.forward(ids[begin + kept : begin + 5], cache)[-1])

    expected = pair.target.forward(ids, fresh)[24::5]

    torch.testing.assert_close(torch.stack(rows), expected, **TOLERANCE)


@pytest.mark.parametrize("keep", [1, 3])
def test_kept_rows_equal_all_rows(pair, keep) -> None:
    """Skipping the K/V-shared layers for rows nobody asked for changes no other row."""
    ids = tokens(100)
    hidden, _ = oracle_rows(pair.oracle.target, ids)
    cache = new_cache(pair.target, 64)
    pair.target.forward(ids[:60], cache, keep=keep)

    kept = pair.target.forward(ids[60:], cache, keep=keep)

    torch.testing.assert_close(kept, hidden[-keep:], **TOLERANCE)


def test_rows_do_not_depend_on_their_number(pair_of: Callable) -> None:
    """Bit for bit: what makes greedy text with drafts equal to greedy text without."""
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        pytest.skip("promised for AVX2 alone; other CPUs agree to rounding")
    target, ids = pair_of("31b").target, tokens(128)
    alone = run(target, new_cache(target), ids, (1,) * 128)
    for rows in (2, 3, 4, 5, 6, 7, 8, 9):
        count = 128 // rows
        together = run(target, new_cache(target), ids[: rows * count], (rows,) * count)

        assert torch.equal(together, alone[: rows * count]), rows


def test_bidirectional_images_equal_transformers(pair_of: Callable) -> None:
    """Rows of one image see each other on sliding layers; soft embeddings replace the tokens'."""
    pair, ids, length = pair_of("31b"), tokens(40), 40
    soft_at = torch.tensor([*range(4, 11), *range(12, 18)])
    embeddings = torch.randn(len(soft_at), 64, generator=torch.Generator().manual_seed(3))
    kinds = torch.zeros(1, length, dtype=torch.long)
    kinds[0, soft_at] = 1
    blocks = get_block_sequence_ids_for_mask(kinds, torch.device("cpu"))
    model, config = pair.oracle.target.model, pair.oracle.target.config
    inputs = model.embed_tokens(ids[None]).index_copy(1, soft_at, embeddings[None])
    masks = create_masks_for_vision_model(
        config, inputs, None, None, torch.arange(length)[None], blocks
    )
    with torch.inference_mode():
        expected = model(inputs_embeds=inputs, attention_mask=masks).last_hidden_state[0]

    soft = SoftRows(soft_at, embeddings, blocks[0])
    ours = pair.target.forward(ids, new_cache(pair.target, 64), soft=soft)

    torch.testing.assert_close(ours, expected, **TOLERANCE)


def test_soft_rows_take_the_pad_tokens_per_layer_embedding(pair_of: Callable) -> None:
    """A placeholder's own token id must not reach the per-layer table."""
    pair, ids = pair_of("e2b"), tokens(20)
    assert isinstance(pair.oracle.target.config, Gemma4TextConfig)
    at = torch.arange(5, 12)
    embeddings = torch.randn(7, 64, generator=torch.Generator().manual_seed(3))
    model = pair.oracle.target.model
    inputs = model.embed_tokens(ids[None]).index_copy(1, at, embeddings[None])
    with torch.inference_mode():
        per_layer = model.get_per_layer_inputs(ids.index_fill(0, at, 0)[None], None)
        out = model(inputs_embeds=inputs, per_layer_inputs=per_layer)

    soft = SoftRows(at, embeddings, torch.full((20,), -1))
    ours = pair.target.forward(ids, new_cache(pair.target, 32), soft=soft)

    torch.testing.assert_close(ours, out.last_hidden_state[0], **TOLERANCE)


def test_bf16_stays_close_to_float32(pair_of: Callable, e2b_directory) -> None:
    """The plain kernels, used off the CPU's float32 path, compute the same function."""
    from gemmarunner.models.loader import load_target
    from tests.fakes.tiny_models import checkpoint_files

    target = load_target(checkpoint_files(e2b_directory / "target"), "cpu", torch.bfloat16)
    ids = tokens(40)
    exact = pair_of("e2b").target.forward(ids, new_cache(pair_of("e2b").target, 40))

    rough = run(target, new_cache(target, 40), ids, (30, 1, 4, 5)).float()

    similarity = torch.cosine_similarity(rough, exact, -1)
    assert similarity.min() > 0.98
