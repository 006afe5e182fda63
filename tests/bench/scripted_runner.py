"""A runner whose model costs nothing: the real one, but for a backend that recites a text.

`python -m tests.bench.scripted_runner --round-ms 2 --prefill-ms 0 --depth 2 --fd N` is what
`tests.bench.pieces` has its daemon start. Rounds and chunks of prompts last so long, or no time at
all, and as many drafts as `--depth` says are always accepted.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from gemmad.wire import Load
from gemmarunner import __main__, loading
from gemmarunner.backends import Built, Place, Report
from gemmarunner.engine.ports import RoundPlan, RoundResult, Snapshot
from gemmarunner.engine.sampling import Sampler
from gemmarunner.files import Files, read_tokenizer
from tests.bench import shapes

TEXT = (
    " To pull a model, run `gemma pull` and its name. The daemon fetches the target and its"
    " drafter, checks every byte, and only then shows the name in lists.\n\n1. A pull that was cut"
    " short goes on where it ended.\n2. Two programs that want the same model share one pull."
)


class Kept(NamedTuple):
    """A snapshot of nothing."""

    length: int
    nbytes: int = 1


class Reciting:
    """A round that is over when its time has come."""

    def __init__(self, result: RoundResult, until: float) -> None:
        self._result, self._until = result, until

    def wait(self) -> RoundResult:
        """The texts' next tokens."""
        if (rest := self._until - time.perf_counter()) > 0:
            time.sleep(rest)
        return self._result


class Reciter:
    """A `Backend` whose texts all say `text` over and over."""

    vocab_size = shapes.VOCAB
    max_rows = 2048
    kv_bytes = 1 << 20
    device = torch.device("cpu")
    row_invariant = True

    def __init__(
        self,
        text: Sequence[int],
        slots: int,
        num_ctx: int,
        drafts: int,
        round_s: float,
        prefill_s: float,
    ) -> None:
        self.slots, self.num_ctx, self.max_depth = slots, num_ctx, drafts
        self._text = list(text) * 2  # so that a round's slice never has to wrap
        self._period = len(text)
        self._round_s, self._prefill_s = round_s, prefill_s
        self._lengths = [0] * slots

    def depth_limit(self, _batch: int) -> int:
        """As many as are always right."""
        return self.max_depth

    def length(self, slot: int) -> int:
        """Positions said to be read."""
        return self._lengths[slot]

    def can_truncate(self, _slot: int, _length: int) -> bool:
        """Nothing is kept that could be missing."""
        return True

    def truncate(self, slot: int, length: int) -> None:
        """The slot is at `length`."""
        self._lengths[slot] = length

    def prefill(self, slot: int, tokens: Sequence[int]) -> None:
        """Takes its time from Python, as launching kernels does."""
        until = time.perf_counter() + self._prefill_s
        while time.perf_counter() < until:
            pass
        self._lengths[slot] += len(tokens)

    def first(self, slot: int, tokens: list[int], sampler: Sampler) -> int:
        """The text's next token."""
        return self._text[len(tokens) % self._period]

    def launch(self, plans: Sequence[RoundPlan]) -> Reciting:
        """All drafts will be accepted."""
        until = time.perf_counter() + self._round_s
        found = []
        for slot, tokens, _, depth in plans:
            at = len(tokens) % self._period
            found.append(self._text[at : at + depth + 1])
            self._lengths[slot] = len(tokens) + depth
        return Reciting(RoundResult(found, self._round_s or 1e-6), until)

    def follow(self, plans: Sequence[RoundPlan]) -> None:
        """A host's pace is measured here, so no round begins before its predecessor is known."""

    def snapshot(self, slot: int) -> Snapshot:
        """Nothing but where the slot is."""
        return Kept(self._lengths[slot])

    def restore(self, slot: int, snapshot: Snapshot) -> None:
        """The slot is where it was."""
        self._lengths[slot] = snapshot.length

    def detach(self) -> int:
        """There is no drafter's memory."""
        return 0

    def attach(self, _drafter: Any) -> Iterator[None]:
        """There is nothing to put in."""
        return iter(())

    def warm(self, report: Report) -> None:
        """Nothing is built."""

    def close(self) -> None:
        """Nothing is freed."""


def reciter(files: Files, slots: int, num_ctx: int, options: argparse.Namespace) -> Reciter:
    """A backend that speaks with the tokenizer of `files`."""
    tokenizer = read_tokenizer(files)
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    text = [id for id in ids if tokenizer.decode([id]).strip()]  # a space waits for what follows
    times = options.round_ms / 1e3, options.prefill_ms / 1e3
    return Reciter(text, slots, num_ctx, options.depth, *times)


def main() -> None:
    """The real runner's life."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round-ms", type=float, required=True)
    parser.add_argument("--prefill-ms", type=float, required=True)
    parser.add_argument("--depth", type=int, required=True)
    options, rest = parser.parse_known_args()

    def build(load: Load, files: Files, _place: Place, _report: object) -> Built:
        backend = reciter(files, load.num_parallel, load.num_ctx, options)
        return Built(backend, shapes.target_config("nano"), False, None, lambda: None)  # type: ignore[arg-type,return-value]

    loading.build = build  # a bench's own: no setting leads here
    sys.argv[1:] = rest
    __main__.main()


if __name__ == "__main__":
    main()
