"""Checks the attention and head kernels on an accelerator, then times them in CUDA graphs.

`PYTHONPATH=daemon:. python -m tests.bench.attention [--sweep]` prints one compact table, and
writes attention.json where the environment names a folder OUT.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels import attention, heads, prompt_attention
from gemmarunner.kernels.rows import Rows
from tests.fakes.chunks import chunk_of

DTYPE = torch.bfloat16
CAPACITY = 131_072
GPU = "cuda"


class Layer(NamedTuple):
    """One attention layer's shape."""

    name: str
    heads: int
    kv_heads: int
    head_dim: int
    window: int | None

    def cache(self, slots: int, capacity: int = CAPACITY) -> Tensor:
        """A filled cache [slots, 2, Hkv, ring, D]."""
        ring = self.window + 64 if self.window else capacity
        shape = (slots, 2, self.kv_heads, ring, self.head_dim)
        filled: Tensor = torch.randn(shape, dtype=DTYPE, device=GPU)
        return filled

    def queries(self, rows: int) -> Tensor:
        """[rows, Hq, D], of a size that leaves the softmax neither flat nor one-hot."""
        q: Tensor = torch.randn(rows, self.heads, self.head_dim, device=GPU)
        return (q * (2 / math.sqrt(self.head_dim))).to(DTYPE)

    def seen(self, context: int) -> int:
        """Keys of one row."""
        return min(context, self.window or context)


LAYERS = (
    Layer("E4B sliding", 8, 2, 256, 512),
    Layer("E4B full", 8, 2, 512, None),
    Layer("E2B full", 8, 1, 512, None),
    Layer("31B sliding", 32, 16, 256, 1024),
    Layer("31B full", 32, 4, 512, None),
)
CHECKED = (*LAYERS, Layer("12B full", 16, 1, 512, None), Layer("drafter", 4, 2, 256, 512))


def rows_of(slots: list[int], starts: list[int], per: int) -> Rows:
    """Rows on the device."""
    slot, start = (torch.tensor(x, dtype=torch.int32, device=GPU) for x in (slots, starts))
    return Rows(slot, start, per)


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected number."""
    return ((found.double() - expected.double()).abs().max() / expected.abs().max()).item()


def check_attend(layer: Layer) -> str:
    """Error against the twin, and rows bit-equal whatever stands beside them."""
    cache = layer.cache(4, 8192)
    worst = 0.0
    for start, lag in ((3, 0), (700, 1), (5000, 0)):
        rows = rows_of([2, 0, 1], [start, 1, start // 2 + 1], 5)
        q = layer.queries(15)
        kind: dict[str, Any] = {"window": layer.window, "lag": lag}
        expected = attention.attend_slow(q.double(), cache, rows, **kind)
        worst = max(worst, error(attention.attend(q, cache, rows, chunk=64, **kind), expected))
    assert worst < 1e-2, (layer, worst)
    for start in (1, 60, 511, 1020, 2040, 3333):
        check_rows(layer, cache, start)
    return f"{layer.name}: error {worst:.1e}, rows equal"


def check_rows(layer: Layer, cache: Tensor, start: int) -> None:
    """Each of 17 rows alone equals itself among P rows and B sequences."""
    q = layer.queries(17)
    kind: dict[str, Any] = {"window": layer.window, "lag": 0, "chunk": 64}
    alone = [
        attention.attend(q[i : i + 1], cache, rows_of([1], [start + i], 1), **kind)
        for i in range(17)
    ]
    expected = torch.cat(alone)
    for per in (*range(1, 10), 17):
        for batch in (1, 2, 4):
            rows = rows_of([1, 0, 3, 2][:batch], [start, 7, 4000, 900][:batch], per)
            others = layer.queries((batch - 1) * per)
            found = attention.attend(torch.cat((q[:per], others)), cache, rows, **kind)
            assert torch.equal(found[:per], expected[:per]), (layer, start, per, batch)


def head_inputs(layer: Layer, rows: int, splits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Partial sums, the two norm weights and rope frequencies."""
    columns = (layer.heads + 2 * layer.kv_heads) * layer.head_dim
    parts = torch.randn(splits, rows, columns, device=GPU)
    weights = torch.rand(2, layer.head_dim, device=GPU) + 0.5
    pairs = torch.arange(layer.head_dim // 2, device=GPU)
    return parts, weights[0], weights[1], 1e4 ** (-2.0 * pairs / layer.head_dim)


def head_settings(layer: Layer) -> dict[str, Any]:
    """Keyword arguments of the head operators."""
    shape = {"heads": layer.heads, "kv_heads": layer.kv_heads, "head_dim": layer.head_dim}
    return {**shape, "eps": 1e-6, "k_eq_v": False, "dtype": torch.float32}


def check_heads(layer: Layer) -> str:
    """Error against the twin in float32, at the longest positions too."""
    rows = rows_of([0, 1], [131_071 - 4, 3], 4)
    inputs, settings = head_inputs(layer, 8, 4), head_settings(layer)
    q, new = heads.split_heads(*inputs, rows, **settings)
    shape = heads.HeadShape(layer.heads, layer.kv_heads, layer.head_dim, False)
    expected = heads.split_heads_slow(*inputs, rows, 1e-6, shape, torch.float32)
    cache = torch.zeros(2, 2, layer.kv_heads, 64, layer.head_dim, device=GPU)
    written = heads.write_heads(*inputs, cache, rows, **settings)
    assert torch.equal(written, q)
    at = (rows.start.long()[:, None] + torch.arange(4, device=GPU)) % 64
    stored = cache[torch.arange(2, device=GPU)[:, None], :, :, at].flatten(0, 1)
    assert torch.equal(stored.permute(1, 2, 0, 3), new)
    worst = max(error(q, expected[0]), error(new, expected[1]))
    assert worst < 1e-5, (layer, worst)
    return f"{layer.name} heads: error {worst:.1e}"


def check_prompt(layer: Layer) -> str:
    """Error against the twin, with and without a past, ragged sizes."""
    cache, worst = layer.cache(2, 4096), 0.0
    for count, start in ((300, 0), (129, 1), (257, 2000), (1000, 1500)):
        new = torch.randn(2, layer.kv_heads, count, layer.head_dim, device=GPU).to(DTYPE)
        q = layer.queries(count)
        args = (new, cache, chunk_of(1, start, count, GPU), layer.window)
        expected = prompt_attention.attend_prompt_slow(q, *args)
        worst = max(worst, error(prompt_attention.attend_prompt(q, *args), expected))
    assert worst < 1e-2, (layer, worst)
    return f"{layer.name} prompt: error {worst:.1e}"


def microseconds(calls: list[Callable[[], object]], replays: int = 4) -> float:
    """Shortest mean time of one call, all of them in one CUDA graph."""
    calls[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    times: list[float] = []
    for _ in range(replays):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / len(calls))
    return min(times)


class Timing(NamedTuple):
    """One line of the table."""

    what: str
    microseconds: float
    pieces: float  # microseconds of the first kernel alone; 0: not taken apart
    rate: float
    unit: str

    def __str__(self) -> str:
        apart = f"{self.pieces:9.1f}" if self.pieces else " " * 9
        return f"{self.what:52}{self.microseconds:9.1f}{apart}{self.rate:9.2f} {self.unit}"


def time_attend(
    layer: Layer, cache: Tensor, context: int, per: int, batch: int, how: attention.Tiling | None
) -> Timing:
    """Decoding attention at a context length; successive calls read different slots."""
    how = how or attention.tiling_for(layer.head_dim, layer.window)
    slots, q = cache.shape[0], layer.queries(batch * per)
    kind: dict[str, Any] = {"window": layer.window, "lag": 0, "chunk": 64}
    many = 12 if context < CAPACITY else 3
    steps = [
        rows_of([(i * batch + b) % slots for b in range(batch)], [context - per] * batch, per)
        for i in range(many)
    ]
    whole = microseconds(
        [partial(attention.attend_pieces, q, cache, rows, tiling=how, **kind) for rows in steps]
    )
    pieces = microseconds(
        [partial(attention.make_partials, q, cache, rows, how=how, **kind) for rows in steps]
    )
    read = 2 * 2 * batch * layer.kv_heads * layer.head_dim * layer.seen(context)
    what = f"{layer.name} ctx {context} P {per} B {batch}"
    return Timing(what, whole, pieces, read / whole * 1e-6, "TB/s")


def time_heads(layer: Layer, cache: Tensor, per: int, batch: int) -> Timing:
    """write_heads of 4 partial sums."""
    inputs = head_inputs(layer, batch * per, 4)
    rows = rows_of([b % cache.shape[0] for b in range(batch)], [500] * batch, per)
    settings = {**head_settings(layer), "dtype": DTYPE}
    took = microseconds([lambda: heads.write_heads(*inputs, cache, rows, **settings)] * 12)
    read = inputs[0].numel() * 4
    return Timing(
        f"{layer.name} write_heads P {per} B {batch}", took, 0, read / took * 1e-6, "TB/s"
    )


def time_prompt(
    layer: Layer, cache: Tensor, start: int, how: prompt_attention.Tiling | None
) -> Timing:
    """A chunk of 2048 rows; the rate counts pairs that are seen."""
    count = 2048
    new = torch.randn(2, layer.kv_heads, count, layer.head_dim, device=GPU).to(DTYPE)
    q = layer.queries(count)
    args = (q, new, cache, chunk_of(0, start, count, GPU), layer.window)
    took = microseconds([lambda: prompt_attention.attend_tiles(*args, how)] * 4)
    pairs = sum(layer.seen(start + i + 1) for i in range(count))
    rate = 4 * layer.head_dim * layer.heads * pairs / took * 1e-6
    return Timing(f"{layer.name} prompt 2048 at {start}", took, 0, rate, "TFLOP/s")


def time_layer(layer: Layer) -> Iterator[Timing]:
    """All timings of one layer shape."""
    cache = layer.cache(128 if layer.window else 8)
    contexts = (8192,) if layer.window else (512, 8192, CAPACITY)
    for context in contexts:
        for batch in (1, 8):
            for per in (1, 5, 9):
                yield time_attend(layer, cache, context, per, batch, None)
    for per, batch in ((1, 1), (5, 1), (9, 8)):
        yield time_heads(layer, cache, per, batch)
    for start in (0, 6144):
        yield time_prompt(layer, cache, start, None)


def attend_candidates(layer: Layer) -> Iterator[attention.Tiling]:
    """Tilings worth trying: first the pieces, then the combination."""
    best = attention.tiling_for(layer.head_dim, layer.window)
    blocks = (32, 64) if layer.head_dim == 256 else (16, 32, 64)
    for block_n in blocks:
        for warps in (4, 8):
            for stages in (1, 2, 3):
                if block_n * layer.head_dim * 4 * max(1, stages - 1) <= 200_000:
                    yield best._replace(block_n=block_n, warps=warps, stages=stages)
    for crowd in (1, 2, 8):
        yield best._replace(crowd=crowd)
    for tile, block_d, warps in ((16, 64, 2), (16, 256, 4), (32, 64, 4), (64, 64, 4), (16, 128, 2)):
        yield best._replace(tile=tile, block_d=block_d, combine_warps=warps)


def prompt_candidates(layer: Layer) -> Iterator[prompt_attention.Tiling]:
    """Tilings worth trying for the prompt."""
    tiling = prompt_attention.Tiling
    if layer.head_dim == 256:
        yield from (tiling(128, n, 256, 8, s) for n, s in ((32, 2), (32, 3), (64, 1), (64, 2)))
        yield from (tiling(64, n, 256, 4, s) for n, s in ((32, 2), (64, 2), (64, 1)))
        yield tiling(128, 64, 128, 8, 2)
    else:
        yield from (tiling(128, n, 256, 8, s) for n, s in ((16, 2), (16, 3), (32, 1), (32, 2)))
        yield from (tiling(64, n, 256, 4, s) for n, s in ((32, 2), (64, 1), (64, 2), (32, 3)))
        yield tiling(128, 64, 128, 8, 1)


def sweep() -> Iterator[Timing]:
    """Candidate tilings on the E4B shapes; what does not fit a multiprocessor is left out."""
    for layer in LAYERS[:2]:
        cache = layer.cache(128 if layer.window else 8)
        contexts = (8192,) if layer.window else (512, CAPACITY)
        cases = [(context, per) for context in contexts for per in (1, 5)]
        for how in attend_candidates(layer):
            try:
                found = [time_attend(layer, cache, c, p, 1, how) for c, p in cases]
            except Exception as refused:  # whatever the compiler thinks of it
                print(f"{how}: {type(refused).__name__}", flush=True)
                continue
            yield from (t._replace(what=f"{t.what} {tuple(how)}") for t in found)
        for tiling in prompt_candidates(layer):
            try:
                timing = time_prompt(layer, cache, 6144, tiling)
            except Exception as refused:
                print(f"{tiling}: {type(refused).__name__}", flush=True)
                continue
            yield timing._replace(what=f"{timing.what} {tuple(tiling)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", action="store_true", help="try candidate tilings instead")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.sweep:
        timings = list(sweep())
    else:
        for layer in CHECKED:
            for check in (check_attend, check_heads, check_prompt):
                print(check(layer), flush=True)
        timings = [timing for layer in LAYERS for timing in time_layer(layer)]
    print(f"{'':52}{'us':>9}{'pieces':>9}{'rate':>9}")
    print(*timings, sep="\n")
    if "OUT" in os.environ:
        lines = [timing._asdict() for timing in timings]
        Path(os.environ["OUT"], "attention.json").write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
