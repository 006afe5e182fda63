"""Packed rows hold every document whole, with its weights, and nothing else."""

import random

import numpy as np

from tests.unit.train.train_fakes import sample, tokenizer
from train.conversation import Conversation, Segment
from train.pack import (
    Counts,
    Document,
    encode_conversations,
    encode_general,
    make_shard,
    pack,
    pieces,
)


def document(number: int, size: int) -> Document:
    """Return a document that can be told from others."""
    return Document(np.full(size, number, np.int16), np.full(size, 100, np.uint8))


def test_each_document_stands_whole_in_one_row() -> None:
    """Tokens of a document are consecutive, under one document number of their own."""
    rng = random.Random(0)
    sizes = [rng.randint(1, 90) for _ in range(200)]
    rows = pack([document(n + 1, size) for n, size in enumerate(sizes)], length=100)
    for number, size in enumerate(sizes, start=1):
        row, places = np.nonzero(rows.tokens == number)
        assert len(set(row)) == 1
        assert places.tolist() == list(range(places[0], places[0] + size))
        assert len(set(rows.documents[row[0], places])) == 1
    assert (np.diff(rows.documents.astype(int), axis=1) >= 0).all()
    assert (rows.weights[rows.tokens == 0] == 0).all()


def test_rows_are_nearly_full() -> None:
    """First-fit over 64 open rows wastes little."""
    rng = random.Random(0)
    documents = [document(1, rng.randint(20, 500)) for _ in range(3000)]
    rows = pack(documents)

    assert (rows.tokens > 0).mean() > 0.97


def test_a_token_weighs_what_its_segment_weighs() -> None:
    """The first token, which nothing predicts, weighs nothing."""
    segments = (Segment("<bos>ab", 0.1), Segment("cd<turn|>", 1.0), Segment("\n", 0.1))
    counts = Counts()
    (made,) = encode_conversations(tokenizer(), [Conversation(segments)], counts)

    assert made.weights.tolist() == [0, 10, 10, 100, 100, 100, 10]
    assert (counts.model_tokens, counts.straddling) == (3, 0)


def test_too_long_a_conversation_is_counted_and_dropped() -> None:
    """It would not fit in a row whole."""
    counts = Counts()
    long = Conversation((Segment("<bos>" + "a" * 50, 0.1),))

    assert encode_conversations(tokenizer(), [long], counts, longest=50) == []
    assert counts.dropped_long == 1


def test_general_english_stands_between_its_ends() -> None:
    """`<bos>` before and `<eos>` after, at a weight of 0.3."""
    (made,) = encode_general(tokenizer(), ["Hi"], Counts())

    assert (made.tokens[0], made.tokens[-1], len(made.tokens)) == (2, 1, 4)
    assert made.weights.tolist() == [0, 30, 30, 30]


def test_documents_are_cut_at_paragraphs_and_lose_no_word() -> None:
    """Pieces are at most as long as asked."""
    text = "\n\n".join(f"Paragraph {i} " + "word " * 30 for i in range(40))
    cut = pieces([text], longest=500)

    assert max(map(len, cut)) <= 500
    assert " ".join(cut).split() == text.split()
    assert all(piece.startswith("Paragraph") for piece in cut)


def test_a_seed_makes_the_same_shard_again() -> None:
    """And another seed another one, with the share of general English asked for."""
    general = [f"English {i} " * 20 for i in range(50)]
    shards = [
        make_shard(
            tokenizer(),
            sample,
            general,
            {"seed": seed, "conversations": 400, "general_share": 0.4},
        )
        for seed in ("a", "a", "b")
    ]
    share = shards[0].counts.general_tokens / (
        shards[0].counts.general_tokens + shards[0].counts.conversation_tokens
    )

    assert np.array_equal(shards[0].rows.tokens, shards[1].rows.tokens)
    assert not np.array_equal(shards[0].rows.tokens[:9], shards[2].rows.tokens[:9])
    assert 0.38 < share < 0.5
