"""Rows reach the trainer as they are made, every row once before any row twice."""

from concurrent.futures import Future
from random import Random

import numpy as np
import pytest
import torch

from tests.unit.train import train_fakes
from train.pack import ROW, Counts, Rows, Shard
from train.prompts import FIRST_PLAIN, disturbed, make_prompts, sample_prompt
from train.stream import RowStream
from train.workers import named

CPU = torch.device("cpu")


def shard(*numbers: int) -> "Future[Shard]":
    """Return a finished shard whose rows hold their numbers."""
    tokens = np.repeat(np.array(numbers, np.int16)[:, None], ROW, axis=1)
    small = np.full(tokens.shape, 100, np.uint8)
    future: Future[Shard] = Future()
    future.set_result(Shard(Rows(tokens, small, small), Counts(rows=len(numbers))))
    return future


def wait(stream: RowStream) -> None:
    """Wait until all shards are in."""
    with stream._arrived:
        assert stream._arrived.wait_for(lambda: stream._complete, timeout=30)


def test_each_row_is_used_once_before_any_is_used_again() -> None:
    """In the order they were made; then rows are drawn at random."""
    stream = RowStream([shard(0, 1, 2), shard(3, 4, 5)], 100, CPU)
    wait(stream)
    first = [stream.take(3).tokens[:, 0].tolist() for _ in range(2)]
    again = stream.take(4)

    assert first == [[0, 1, 2], [3, 4, 5]]
    assert set(again.tokens[:, 0].tolist()) <= set(range(6))
    assert (again.tokens.dtype, again.weights.max().item()) == (torch.int64, 1.0)
    assert stream.epochs == pytest.approx(10 / 6)


def test_rows_beyond_the_capacity_are_left_out() -> None:
    """The store on the device does not grow."""
    stream = RowStream([shard(0, 1, 2), shard(3, 4, 5)], 4, CPU)
    wait(stream)

    assert stream.kept().tokens[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failed_worker_is_told_when_there_is_nothing_to_train_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With the worker's own error as the cause."""
    failed: Future[Shard] = Future()
    failed.set_exception(ModuleNotFoundError("no grammar"))
    stream = RowStream([failed], 4, CPU)
    with pytest.raises(RuntimeError, match="No training rows") as caught:
        stream.take(1)

    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_prompts_end_where_a_model_turn_begins() -> None:
    """So that the target has something to answer."""
    text = sample_prompt(train_fakes.sample, Random(0))

    assert text.startswith("<bos>")
    assert text.endswith("<|turn>model\n")


def test_disturbed_prompts_keep_their_control_tokens() -> None:
    """Only plain tokens are exchanged, for plain ones of the same prompt."""
    tokens = [2, 105, *range(200, 300), 106, 105]
    spoilt = disturbed(tokens, Random(0))
    control = [(i, t) for i, t in enumerate(tokens) if t < FIRST_PLAIN]

    assert [(i, t) for i, t in enumerate(spoilt) if t < FIRST_PLAIN] == control
    assert set(spoilt) <= set(tokens)
    assert spoilt != tokens


def test_prompts_are_made_again_from_the_same_seed(tmp_path: object) -> None:
    """In any process, from the names of their sources."""
    home, _ = train_fakes.write_inputs(tmp_path)  # type: ignore[arg-type]
    reference = "tests.unit.train.train_fakes:sample"
    made = [make_prompts(str(home / "tokenizer.json"), reference, "s", 20, 60) for _ in range(2)]

    assert made[0] == made[1]
    assert len(made[0]) == 20
    assert max(map(len, made[0])) <= 60
    assert named(reference) is train_fakes.sample
