"""Turns conversations and general English into packed rows of tokens; runs in worker processes.

A row is 1,024 tokens of whole documents one after another: tokens, the number of the document of
each (never falling along the row; the padding at the end is a document of its own) and the loss
weight of each in hundredths, 0 for the first token of a document and for padding.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from train.conversation import GENERAL_WEIGHT, Conversation
from train.shapes import BOS, EOS

ROW = 1024
OPEN_ROWS = 64
MAX_DOCUMENTS = 250
HUNDREDTHS = 100


class Document(NamedTuple):
    """One document's tokens [length] i16 and weights [length] u8 in hundredths."""

    tokens: NDArray[np.int16]
    weights: NDArray[np.uint8]


class Rows(NamedTuple):
    """Packed rows: tokens i16, documents u8, weights u8, each [rows, 1024]."""

    tokens: NDArray[np.int16]
    documents: NDArray[np.uint8]
    weights: NDArray[np.uint8]


@dataclass(slots=True)
class Counts:
    """What went into some rows."""

    conversations: int = 0
    conversation_tokens: int = 0
    model_tokens: int = 0
    general_tokens: int = 0
    dropped_long: int = 0
    straddling: int = 0  # tokens that reach over the border of two weights
    rows: int = 0

    def add(self, other: "Counts") -> None:
        """Add another shard's counts to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def encode_conversations(
    tokenizer: Tokenizer, conversations: Sequence[Conversation], counts: Counts, longest: int = ROW
) -> list[Document]:
    """Return the conversations as documents; those over `longest` tokens are counted and dropped.

    A token weighs what the segment of its first character weighs.
    """
    encodings = tokenizer.encode_batch([c.text for c in conversations], add_special_tokens=False)
    documents = []
    for conversation, encoding in zip(conversations, encodings, strict=True):
        tokens = np.array(encoding.ids, dtype=np.int16)
        if len(tokens) > longest:
            counts.dropped_long += 1
            continue
        weights, straddling = _segment_weights(conversation, np.array(encoding.offsets))
        weights[0] = 0
        counts.conversations += 1
        counts.conversation_tokens += len(tokens)
        counts.model_tokens += int((weights == HUNDREDTHS).sum())
        counts.straddling += straddling
        documents.append(Document(tokens, weights))
    return documents


def _segment_weights(
    conversation: Conversation, offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], int]:
    """Return each token's weight and how many tokens reach into another segment's weight."""
    ends = np.cumsum([len(s.text) for s in conversation.segments])
    values = np.array([round(s.weight * HUNDREDTHS) for s in conversation.segments], np.uint8)
    last = len(values) - 1
    first = values[np.minimum(np.searchsorted(ends, offsets[:, 0], side="right"), last)]
    final = np.maximum(offsets[:, 1] - 1, offsets[:, 0])
    reaching = values[np.minimum(np.searchsorted(ends, final, side="right"), last)]
    return first, int((first != reaching).sum())


def encode_general(tokenizer: Tokenizer, texts: Sequence[str], counts: Counts) -> list[Document]:
    """Return pieces of general English as documents between `<bos>` and `<eos>`."""
    documents = []
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        tokens = np.array([BOS, *encoding.ids[: ROW - 2], EOS], dtype=np.int16)
        weights = np.full(len(tokens), round(GENERAL_WEIGHT * HUNDREDTHS), dtype=np.uint8)
        weights[0] = 0
        counts.general_tokens += len(tokens)
        documents.append(Document(tokens, weights))
    return documents


def pieces(documents: Iterable[str], longest: int = 2400) -> list[str]:
    """Return the documents cut into pieces of at most `longest` characters, best at paragraphs."""
    found: list[str] = []
    for document in documents:
        rest = document.strip()
        while len(rest) > longest:
            cut = max(rest.rfind("\n\n", longest // 2, longest), 0)
            cut = cut or max(rest.rfind(" ", longest // 2, longest), 0) or longest
            found.append(rest[:cut].rstrip())
            rest = rest[cut:].lstrip()
        if rest:
            found.append(rest)
    return found


def pack(documents: Sequence[Document], length: int = ROW) -> Rows:
    """Return the documents packed first-fit, in order, with at most 64 rows open at a time."""
    done: list[list[Document]] = []
    rows: list[list[Document]] = []
    room: list[int] = []
    for document in documents:
        size = len(document.tokens)
        place = next((i for i, free in enumerate(room) if free >= size), None)
        if place is None:
            if len(rows) == OPEN_ROWS:
                fullest = room.index(min(room))
                done.append(rows.pop(fullest))
                room.pop(fullest)
            rows.append([])
            room.append(length)
            place = len(rows) - 1
        rows[place].append(document)
        room[place] -= size
        if len(rows[place]) == MAX_DOCUMENTS:
            room[place] = 0
    return _filled([*done, *rows], length)


def _filled(rows: list[list[Document]], length: int) -> Rows:
    tokens = np.zeros((len(rows), length), dtype=np.int16)
    documents = np.zeros((len(rows), length), dtype=np.uint8)
    weights = np.zeros((len(rows), length), dtype=np.uint8)
    for index, row in enumerate(rows):
        at = 0
        for number, document in enumerate(row):
            end = at + len(document.tokens)
            tokens[index, at:end] = document.tokens
            documents[index, at:end] = number
            weights[index, at:end] = document.weights
            at = end
        documents[index, at:] = len(row)
    return Rows(tokens, documents, weights)


class Shard(NamedTuple):
    """A worker's result."""

    rows: Rows
    counts: Counts


def make_shard(
    tokenizer: Tokenizer,
    sample: Callable[[random.Random], Conversation],
    general: Sequence[str],
    settings: dict[str, Any],
) -> Shard:
    """Return one shard: `conversations` draws and enough general English for its `general_share`.

    The same `seed` gives the same shard.
    """
    rng = random.Random(settings["seed"])
    counts = Counts()
    drawn = [sample(rng) for _ in range(settings["conversations"])]
    documents = encode_conversations(tokenizer, drawn, counts)
    share = settings["general_share"]
    wanted = counts.conversation_tokens * share / (1 - share)
    while general and counts.general_tokens < wanted:
        documents += encode_general(tokenizer, rng.choices(general, k=32), counts)
    rng.shuffle(documents)
    rows = pack(documents)
    counts.rows = len(rows.tokens)
    return Shard(rows, counts)
