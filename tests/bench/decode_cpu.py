"""How fast a pair decodes on this CPU in this process, synthetic weights in the real shapes.

Random weights accept nothing by themselves: which drafts stay is drawn from the wanted rates. A
round drafts, verifies and samples as in service. The floor is the bytes that one token reads over
the read bandwidth measured in the same run, before and after.
"""

import random
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gemmarunner.device import use_threads
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.propose import NOTHING, DraftKind, propose
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from gemmarunner.models.drafter import Drafter
from gemmarunner.models.gguf_file import read_model
from gemmarunner.models.linear import MakeLinear, make_linear
from gemmarunner.models.loader import load_target
from gemmarunner.models.packing import Pack, packer
from gemmarunner.models.target import Target
from gemmarunner.models.weights import Matrix
from gemmarunner.native.linear import BLOCK
from gemmarunner.quant.formats import Format, quantize
from tests.bench import shapes

_CHUNK = 256
_WARM_ROUNDS = 2
_READ_BYTES = 2**29
_CPU = torch.device("cpu")
BYTES_PER_WEIGHT = {"bf16": 2.0, "int8": 1.0625, "q8_0": 1.0625, "int4": 0.5625, "q4_0": 0.5625}
# What may be approximated further; q8_0 and q4_0 stand for files that hold them, kept as they are.
_REQUANTIZED = (("int8", ""), ("int8", "head"), ("int4", "head"))
_IN_FILES = ("q8_0", "q4_0")
_SMALL_ELEMENTS = 2**16  # below this files keep 16 bits


class CpuPair(NamedTuple):
    """A target, its drafter if drafts are wanted, and bytes of weights a decoded token reads."""

    target: Target
    drafter: Drafter | None
    read_bytes: float


def run(
    shape: str,
    weights: str,
    depth: int,
    accept: list[float],
    prompt: int,
    tokens: int,
    threads: int,
) -> dict[str, Any]:
    """The figures of one configuration; `accept` is unconditional, by position."""
    pair = build_pair(shape, weights, depth > 0)
    use_threads(threads, "cpu", int(pair.read_bytes))
    before = read_bandwidth()
    cache = KVCache(pair.target.config, prompt + tokens + 64, _CHUNK, _CPU, torch.float32)
    prefill_s = prefill(pair.target, cache, prompt)
    seconds, counts = decode(pair, cache, depth, accept, tokens)
    bandwidth = max(before, read_bandwidth())
    per_round = statistics.mean(counts)
    ms_round = statistics.median(seconds) * 1e3
    floor_ms = pair.read_bytes / bandwidth * 1e3
    return {
        "shape": shape,
        "weights": weights,
        "device": "cpu",
        "depth": depth,
        "threads": torch.get_num_threads(),
        "ms_per_token": round(ms_round / per_round, 3),
        "ms_per_round": round(ms_round, 3),
        "ms_per_round_best": round(min(seconds) * 1e3, 3),
        "tokens_per_round": round(per_round, 3),
        "floor_ms": round(floor_ms, 3),
        "of_floor": round(floor_ms / (ms_round / per_round), 3),
        "prefill_tokens_per_s": round(prompt / prefill_s, 1),
        "read_gb_s": round(bandwidth / 1e9, 1),
    }


def build_pair(shape: str, weights: str, drafts: bool) -> CpuPair:
    """Float32 activations over `weights`: a GGUF file of this shape, or what is made at random."""
    made = _from_file(Path(weights)) if weights.endswith(".gguf") else _synthetic(shape, weights)
    if not drafts:
        return made
    take = _Take(shapes.Synthetic(_CPU, torch.bfloat16, 1))
    drafter = Drafter(shapes.drafter_config(shape), take, _CPU, torch.float32)
    drafter.bind(made.target)
    return made._replace(drafter=drafter)


def _from_file(path: Path) -> CpuPair:
    files = {path.name: path}
    target = load_target(files, "cpu", torch.float32)
    stored = read_model(files).tensors.items()
    read = sum(it.info.nbytes for name, it in stored if not name.startswith("per_layer_token"))
    return CpuPair(target, None, read)


def _synthetic(shape: str, weights: str) -> CpuPair:
    """Weights that a bf16 checkpoint would hold, packed as wanted."""
    tensors = shapes.synthetic_target(shape, _CPU, torch.bfloat16)
    linear, head = _packing(weights)
    config = shapes.target_config(shape)
    take = _Take(tensors)
    target = Target(config, take, _CPU, torch.float32, linear=linear, head=head)
    share = BYTES_PER_WEIGHT[weights] / 2
    return CpuPair(target, None, tensors.read_bytes * share)


class _Take:
    """Widens what a CPU computes in float32, and keeps one row of the per-layer table."""

    def __init__(self, tensors: shapes.Synthetic) -> None:
        self._tensors = tensors

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        if name.endswith("embed_tokens_per_layer.weight"):  # gigabytes, of which a row is read
            return self._tensors.take(name, (1, shape[1])).expand(shape)
        tensor = self._tensors.take(name, shape)
        return tensor if stored or not tensor.is_floating_point() else tensor.float()


def _packing(weights: str) -> tuple[MakeLinear, MakeLinear]:
    if weights == "bf16":
        return make_linear, make_linear
    pack = _as_in_files(weights) if weights in _IN_FILES else packer(weights)

    def packed(name: str) -> MakeLinear:
        requantize = (weights, name) in _REQUANTIZED
        return lambda matrix: make_linear(pack(name, matrix), requantize=requantize)

    return packed(""), packed("head")


def _as_in_files(weights: str) -> Pack:
    """Blocks as GGML makes them, which take no search; the head in 8 bits."""

    def pack(name: str, matrix: Matrix) -> Matrix:
        wanted = Format.Q8_0 if name == "head" else Format(weights)
        assert isinstance(matrix, Tensor)
        fits = matrix.numel() >= _SMALL_ELEMENTS and matrix.shape[1] % BLOCK == 0
        return quantize(matrix, wanted, search=False) if fits else matrix

    return pack


def read_bandwidth() -> float:
    """Bytes a second that torch reads of memory larger than the caches, best of several."""
    memory = torch.ones(_READ_BYTES // 4)
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        memory.sum()
        times.append(time.perf_counter() - begun)
    return _READ_BYTES / min(times)


def prefill(target: Target, cache: KVCache, prompt: int) -> float:
    """Seconds of a prompt in chunks."""
    generator = torch.Generator().manual_seed(2)
    text = torch.randint(10, target.config.vocab_size, (prompt,), generator=generator)
    begun = time.perf_counter()
    for chunk in torch.split(text, _CHUNK):
        target.forward(chunk, cache, keep=1)
    return time.perf_counter() - begun


@torch.inference_mode()
def decode(
    pair: CpuPair, cache: KVCache, depth: int, accept: list[float], wanted: int
) -> tuple[list[float], list[int]]:
    """Seconds and tokens of each round."""
    chance = random.Random(0)
    sampler = Sampler(Sampling(seed=1), vocab=pair.target.config.vocab_size)
    token = torch.tensor([10])
    hidden = torch.zeros(1, pair.target.config.hidden)
    seconds: list[float] = []
    counts: list[int] = []
    while sum(counts[_WARM_ROUNDS:]) < wanted:
        kept = _kept(chance.random(), depth, accept)
        start = cache.length
        begun = time.perf_counter()
        token, hidden = _round(pair, cache, sampler, token, hidden, depth, kept)
        seconds.append(time.perf_counter() - begun)
        counts.append(kept + 1)
        if cache.length + depth + 1 >= cache.capacity:
            cache.truncate(start)
    return seconds[_WARM_ROUNDS:], counts[_WARM_ROUNDS:]


def _kept(luck: float, depth: int, accept: list[float]) -> int:
    """How many drafts stay; `accept[i]` is the share of rounds that keep more than i."""
    return sum(rate > luck for rate in accept[:depth])


def _round(
    pair: CpuPair,
    cache: KVCache,
    sampler: Sampler,
    token: Tensor,
    hidden: Tensor,
    depth: int,
    kept: int,
) -> tuple[Tensor, Tensor]:
    """Drafts, verifies and chooses; keeps `kept` drafts whatever was chosen."""
    position = cache.length + 1
    proposal = NOTHING
    if depth and pair.drafter is not None:
        proposal = propose(
            pair.drafter, cache, sampler, DraftKind.COUPLED,
            depth=depth, token=token, hidden=hidden, history=None, position=position,
        )  # fmt: skip
    rows = torch.cat((token, *proposal.tokens))
    hidden_rows = pair.target.forward(rows, cache)
    chosen = sampler.choose(pair.target.logits(hidden_rows), None, position)
    chosen.tolist()
    cache.truncate(position - 1 + kept + 1)
    return chosen[kept : kept + 1], hidden_rows[kept : kept + 1]
