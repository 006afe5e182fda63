"""Prompts from the grammar for the target to continue, made in worker processes without torch."""

import random
from collections.abc import Callable

from tokenizers import Tokenizer

from train.conversation import MODEL_WEIGHT, Conversation
from train.workers import named

LAST_TURN_SHARE = 0.6
DISTURBED_SHARE = 0.3
REPLACED_SHARE = 0.1
FIRST_PLAIN = 107  # control tokens lie below; they keep their places


def sample_prompt(sample: Callable[[random.Random], Conversation], rng: random.Random) -> str:
    """Return the text of a drawn conversation up to one of its model turns, often the last."""
    while True:
        segments = sample(rng).segments
        turns = [i for i, segment in enumerate(segments) if segment.weight == MODEL_WEIGHT]
        if turns:
            last = rng.random() < LAST_TURN_SHARE
            cut = turns[-1] if last else rng.choice(turns)
            return "".join(segment.text for segment in segments[:cut])


def disturbed(tokens: list[int], rng: random.Random) -> list[int]:
    """Return the tokens with some plain ones exchanged for others of the same prompt.

    A drafter must also follow a target that understands a prompt badly, as it does unseen frames.
    """
    plain = [token for token in tokens if token >= FIRST_PLAIN]
    return [
        rng.choice(plain) if token >= FIRST_PLAIN and rng.random() < REPLACED_SHARE else token
        for token in tokens
    ]


def make_prompts(
    tokenizer_file: str, sampler: str, seed: str, count: int, longest: int
) -> list[tuple[int, ...]]:
    """Return `count` prompts as tokens, each at most `longest`, some of them disturbed."""
    tokenizer, rng = Tokenizer.from_file(tokenizer_file), random.Random(seed)
    sample = named(sampler)
    found: list[tuple[int, ...]] = []
    while len(found) < count:
        texts = [sample_prompt(sample, rng) for _ in range(min(256, count))]
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
            if len(encoding.ids) > longest:
                continue
            spoil = rng.random() < DISTURBED_SHARE
            found.append(tuple(disturbed(encoding.ids, rng) if spoil else encoding.ids))
    return found[:count]
