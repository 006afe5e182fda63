"""Rows of logits whose choices the text before them bends, in the device's form."""

import torch

from gemmarunner.engine.penalties import Penalties
from gemmarunner.engine.request import Sampling
from gemmarunner.kernels.penalise import RECENT, Bending

VOCAB = 40  # few enough that tokens repeat
KINDS = (
    Sampling(),
    Sampling(repeat_penalty=1.3, repeat_last_n=9),
    Sampling(repeat_penalty=0.7, presence_penalty=0.5, repeat_last_n=RECENT),
    Sampling(frequency_penalty=-0.3, presence_penalty=0.2, repeat_last_n=1),
    Sampling(frequency_penalty=0.4),
)


def bending(texts: list[list[int]], requests: list[Sampling]) -> Bending:
    """The device's form of some requests and the ends of their texts."""
    recent = torch.full((len(texts), RECENT), 3, dtype=torch.int32)
    for ring, text in zip(recent, texts, strict=True):
        for index in range(max(0, len(text) - RECENT), len(text)):
            ring[index % RECENT] = text[index]
    penalties = [Penalties.of(request) for request in requests]
    return Bending(
        torch.tensor([own.window * own.active for own in penalties], dtype=torch.int32),
        torch.tensor([own.repeat for own in penalties]),
        torch.tensor([own.presence for own in penalties]),
        torch.tensor([own.frequency for own in penalties]),
        recent,
        torch.tensor([len(text) for text in texts], dtype=torch.int32),
    )


def scene(seed: int, depth: int) -> tuple[torch.Tensor, torch.Tensor, list[list[int]], Bending]:
    """Logits of a round of every kind of request, drafts, texts, and the device's form."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 2 * RECENT, (len(KINDS),), generator=generator).tolist()
    texts = [torch.randint(VOCAB, (n,), generator=generator).tolist() for n in lengths]
    drafts = torch.randint(VOCAB, (len(KINDS), depth), generator=generator)
    logits = torch.randn(len(KINDS) * (depth + 1), VOCAB, generator=generator)
    return logits, drafts, texts, bending(texts, list(KINDS))
