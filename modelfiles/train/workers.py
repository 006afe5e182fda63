"""The worker processes that make training data; nothing here loads torch, so they start at once."""

import importlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from train.pack import Shard, make_shard, pieces

HELD_OUT_EVERY = 50  # one piece of general English in so many is kept for validation
_worker: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Where training data comes from and how much of it there is."""

    tokenizer: Path
    general: Path
    sampler: str  # "module:function"
    seed: int
    conversations: int
    shard: int
    general_share: float
    workers: int


def named(reference: str) -> Any:
    """Return the object that "module:name" names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _start_worker(settings: DataSettings) -> None:
    """Load once what every shard needs; workers yield the processor to the compiler and trainer."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(10)
    corpus = importlib.import_module("train.corpus")
    _worker["tokenizer"] = Tokenizer.from_file(str(settings.tokenizer / "tokenizer.json"))
    _worker["sample"] = named(settings.sampler)
    _worker["general"] = pieces(corpus.load_documents(settings.general))


def _shard(settings: DataSettings, number: int, count: int, validation: bool) -> Shard:
    """Return shard `number`; validation shards take the held-out pieces of general English."""
    if not _worker:
        _start_worker(settings)
    general = _worker["general"]
    if len(general) >= 2 * HELD_OUT_EVERY:
        held_out = general[::HELD_OUT_EVERY]
        rest = [p for i, p in enumerate(general) if i % HELD_OUT_EVERY]
        general = held_out if validation else rest
    wanted = {
        "seed": f"{settings.seed}/{'validation' if validation else 'shard'}/{number}",
        "conversations": count,
        "general_share": settings.general_share,
    }
    return make_shard(_worker["tokenizer"], _worker["sample"], general, wanted)


class Workers:
    """The pool that makes shards and other work for the processor; close it when done."""

    def __init__(self, settings: DataSettings) -> None:
        self.settings = settings
        # sets are iterated in hash order: the same seed must give the same text in every process
        os.environ.setdefault("PYTHONHASHSEED", "0")
        self._pool = ProcessPoolExecutor(settings.workers, mp_context=get_context("spawn"))

    def shards(self, start: int = 0, stop: int | None = None) -> list[Future[Shard]]:
        """Ask for the shards of that range, in order."""
        whole, rest = divmod(self.settings.conversations, self.settings.shard)
        sizes = [self.settings.shard] * whole + [rest] * (rest > 0)
        return [
            self._pool.submit(_shard, self.settings, number, size, False)
            for number, size in list(enumerate(sizes))[start:stop]
        ]

    def validation(self, count: int) -> "Future[Shard]":
        """Ask for fresh draws and held-out general English."""
        return self._pool.submit(_shard, self.settings, 0, count, True)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Run a function in a worker."""
        return self._pool.submit(function, *arguments)

    def close(self) -> None:
        """Drop what has not started and end the workers."""
        self._pool.shutdown(wait=False, cancel_futures=True)
