"""The target's own answers to grammar prompts, packed as half of the drafter's training text."""

from collections.abc import Callable, Sequence

import numpy as np

from train.generate import Generator, Prompt
from train.pack import HUNDREDTHS, Document, Rows, pack

LONGEST_ANSWER = 192


def own_answers(
    generator: Generator, prompts: Sequence[tuple[int, ...]], enough: Callable[[], bool]
) -> list[Document]:
    """Return prompts with the target's answers, every other one sampled, until `enough()`.

    Only the answers weigh anything.
    """
    asked = [Prompt(tokens, sampled=i % 2 == 1) for i, tokens in enumerate(prompts)]
    answers = generator.continue_all(asked, LONGEST_ANSWER, enough)
    return [_document(p, a) for p, a in zip(asked, answers, strict=True) if a]


def _document(prompt: Prompt, answer: list[int]) -> Document:
    tokens = np.array([*prompt.tokens, *answer], dtype=np.int16)
    weights = np.zeros(len(tokens), dtype=np.uint8)
    weights[len(prompt.tokens) :] = HUNDREDTHS
    return Document(tokens, weights)


def packed_answers(documents: Sequence[Document], length: int) -> Rows:
    """Return the documents packed into rows, long ones cut to their last `length` tokens."""
    return pack([Document(d.tokens[-length:], d.weights[-length:]) for d in documents], length)
