"""Continues many prompts at once with cached keys and values."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from train.attention import Masks, Rope, dense_masks, ropes
from train.model import KeysValues, Target
from train.shapes import PAD, STOP_IDS, TEMPERATURE, TOP_K, TOP_P, LayerType

ALIGN = 64
PREFILL_TOKENS = 1 << 18
LOOK_EVERY = 8


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens to continue, and whether to sample or take the best token each time."""

    tokens: tuple[int, ...]
    sampled: bool


def sample_tokens(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return one token a row, drawn at temperature 1 from the top 64 and the top 95%.

    `logits` is [rows, vocabulary].
    """
    values, tokens = (logits.float() / TEMPERATURE).topk(min(TOP_K, logits.shape[-1]), dim=-1)
    shares = values.softmax(dim=-1)
    before = shares.cumsum(dim=-1) - shares
    shares = shares.masked_fill(before >= TOP_P, 0.0)
    drawn = torch.multinomial(shares, 1, generator=generator)
    return tokens.gather(-1, drawn)[:, 0]


class Cache:
    """Keys and values of the target's own layers for one batch of left-padded prompts."""

    def __init__(self, model: Target, batch: int, slots: int, dtype: torch.dtype) -> None:
        shape, device = model.shape, model.model.embed_tokens.weight.device
        self.layers = [
            KeysValues(
                *(
                    torch.zeros(
                        batch,
                        shape.kv_heads,
                        slots,
                        shape.head_dim(kind),
                        dtype=dtype,
                        device=device,
                    )
                    for _ in range(2)
                )
            )
            for kind in shape.layer_types[: shape.own_layers]
        ]

    def writer(
        self, rows: slice, slots: slice, seen: slice
    ) -> Callable[[int, KeysValues], KeysValues]:
        """Return a store that writes at `rows` and `slots` and reads back the slots `seen`."""

        def store(index: int, fresh: KeysValues) -> KeysValues:
            for cached, new in zip(self.layers[index], fresh, strict=True):
                cached[rows, :, slots] = new
            return KeysValues(*(cached[rows, :, seen] for cached in self.layers[index]))

        return store


class Generator:
    """A frozen target that continues prompts; prompts of like length go together."""

    def __init__(self, model: Target, dtype: torch.dtype, batch: int, seed: int) -> None:
        self.model, self.dtype, self.batch = model, dtype, batch
        self.device = model.model.embed_tokens.weight.device
        self.random = torch.Generator(device=self.device).manual_seed(seed)
        self._tables = ropes(model.shape, torch.arange(model.shape.context, device=self.device))

    @torch.inference_mode()
    def continue_all(
        self,
        prompts: Sequence[Prompt],
        most: int,
        enough: Callable[[], bool] = lambda: False,
    ) -> list[list[int]]:
        """Return each prompt's continuation of at most `most` tokens, its stop token included.

        Once `enough()` is true no further batch is begun; what was not reached stays empty.
        """
        answers: list[list[int]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens))
        groups = [order[at : at + self.batch] for at in range(0, len(order), self.batch)]
        random.Random(0).shuffle(groups)  # so that a cut leaves prompts of all lengths
        for group in groups:
            if enough():
                break
            chosen = [prompts[i] for i in group]
            for index, answer in zip(group, self._continue(chosen, most), strict=True):
                answers[index] = answer
        return answers

    def _continue(self, prompts: Sequence[Prompt], most: int) -> list[list[int]]:
        width = _aligned(max(len(p.tokens) for p in prompts))
        tokens, first = _left_padded(prompts, width, self.device)
        sampled = None
        if any(p.sampled for p in prompts):
            sampled = torch.tensor([p.sampled for p in prompts], device=self.device)
        cache = Cache(self.model, len(prompts), _aligned(width + most), self.dtype)
        token = self._choose(self._prefill(tokens, first, cache), sampled)
        stops = torch.tensor(STOP_IDS, device=self.device)
        written, done = [token], torch.isin(token, stops)
        for count in range(1, most):
            if count % LOOK_EVERY == 0 and bool(done.all()):
                break
            logits = self._step(token, width + count - 1, first, cache)
            token = torch.where(done, PAD, self._choose(logits, sampled))
            written.append(token)
            done |= torch.isin(token, stops)
        return [_until_stop(row) for row in torch.stack(written, dim=1).tolist()]

    def _tables_at(self, slots: slice) -> dict[LayerType, Rope]:
        return {kind: Rope(t.cos[slots], t.sin[slots]) for kind, t in self._tables.items()}

    def _choose(self, logits: Tensor, sampled: Tensor | None) -> Tensor:
        best = logits.argmax(dim=-1)
        if sampled is None:
            return best
        return torch.where(sampled, sample_tokens(logits, self.random), best)

    def _prefill(self, tokens: Tensor, first: Tensor, cache: Cache) -> Tensor:
        """Fill the cache with the prompts, some rows at a time; returns the last logits."""
        rows, width = tokens.shape
        positions = torch.arange(width, device=self.device)
        tables = self._tables_at(slice(0, width))
        found = []
        some = max(1, PREFILL_TOKENS // width)
        for at in range(0, rows, some):
            part = slice(at, min(at + some, rows))
            documents = (positions >= first[part, None]).int()
            masks = dense_masks(documents, self.model.shape.window)
            store = cache.writer(part, slice(0, width), slice(0, width))
            decoded = self.model.model(tokens[part], tables, masks, self.dtype, store)
            found.append(self.model.logits(decoded.hidden[:, -1]))
        return torch.cat(found)

    def _step(self, token: Tensor, slot: int, first: Tensor, cache: Cache) -> Tensor:
        """Write `token` at `slot` and return the logits after it."""
        seen = _aligned(slot + 1)
        keys = torch.arange(seen, device=self.device)
        full = (keys <= slot) & (keys >= first[:, None])
        near = full & (slot - keys < self.model.shape.window)
        masks = Masks(near[:, None, None], full[:, None, None])
        tables = self._tables_at(slice(slot, slot + 1))
        everyone = slice(0, len(token))
        store = cache.writer(everyone, slice(slot, slot + 1), slice(0, seen))
        decoded = self.model.model(token[:, None], tables, masks, self.dtype, store)
        return self.model.logits(decoded.hidden[:, -1])


def _aligned(length: int) -> int:
    return -(-length // ALIGN) * ALIGN


def _left_padded(
    prompts: Sequence[Prompt], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return tokens [prompts, width] ending with each prompt, and where each prompt begins."""
    rows = [[PAD] * (width - len(p.tokens)) + list(p.tokens) for p in prompts]
    first = torch.tensor([width - len(p.tokens) for p in prompts])
    return torch.tensor(rows).to(device), first.to(device)


def _until_stop(tokens: list[int]) -> list[int]:
    for index, token in enumerate(tokens):
        if token in STOP_IDS:
            return tokens[: index + 1]
    return tokens
