"""Checks the matrix and norm kernels on a GPU, then measures what share of copy bandwidth they get.

`PYTHONPATH=daemon:. python -m tests.bench.kernels --shapes e4b --rows 1,5,16,40 [--sweep]`
needs torch, triton and numpy only. Every kernel is first held against its slow twin, and rows
against themselves among other rows, bit for bit. A figure is the time a call takes in a CUDA graph
of many calls, over copies of the weight that together exceed the L2 cache twice. `--sweep` tries
plans other than the built-in one and names the best; `$OUT/kernels.json` then holds all figures.
`--chain` times whole layers instead, see `tests.bench.chain`.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels import linear, linear_triton, norm
from gemmarunner.kernels.linear_plan import Plan, plan, row_tile
from tests.bench import chain

BF16 = torch.bfloat16
ROWS_CHECKED = (1, 2, 5, 9, 16, 17, 40, 128)
CACHE_BYTES = 120 * 2**20
WHOLE = {"matmul": False, "gate_up": True, "ple_gate": True, "head": True}


class Shape(NamedTuple):
    """One product of a model: the operation, and its weight [n, k]."""

    operation: str
    n: int
    k: int

    @property
    def weight_bytes(self) -> int:
        return self.n * self.k * 2


class Figure(NamedTuple):
    """What one plan took for one shape and number of rows."""

    shape: Shape
    rows: int
    plan: Plan
    ms: float
    share: float  # of copy bandwidth

    @property
    def order(self) -> tuple[int, int]:
        """What of the plan must not change with the rows."""
        return self.plan.block_k, self.plan.splits


def model(hidden: int, qkv: list[int], heads: list[int], inner: list[int]) -> list[Shape]:
    """The products of one decoder: those of its attention, its feed-forward layers and head."""
    attention = [Shape("matmul", n, hidden) for n in qkv]
    outputs = [Shape("matmul", hidden, k) for k in heads]
    forward = [(Shape("gate_up", 2 * i, hidden), Shape("matmul", hidden, i)) for i in inner]
    head = Shape("head", 262144, hidden)
    return [*attention, *outputs, *itertools.chain(*forward), head]


def per_layer(hidden: int) -> list[Shape]:
    """The two products of per-layer embeddings."""
    return [Shape("ple_gate", 256, hidden), Shape("matmul", hidden, 256)]


def small_drafter(backbone: int) -> list[Shape]:
    """The products of the drafters of E2B and E4B, which have a centroid head."""
    body = model(256, [1024, 2048], [1024, 2048], [2048])[:-1]
    ends = [Shape("matmul", 256, 2 * backbone), Shape("matmul", backbone, 256)]
    return [*ends, *body, Shape("matmul", 2048, 256)]


def large_drafter(backbone: int, heads: int) -> list[Shape]:
    """The products of the drafters of 12B and up."""
    queries = [heads * 256, heads * 512]
    ends = [Shape("matmul", 1024, 2 * backbone), Shape("matmul", backbone, 1024)]
    return [*ends, *model(1024, queries, queries, [8192])]


SHAPES = {
    "e2b": model(1536, [2560, 2048, 5120, 4096], [2048, 4096], [6144, 12288]) + per_layer(1536),
    "e4b": model(2560, [3072, 2048, 6144, 4096], [2048, 4096], [10240]) + per_layer(2560),
    "12b": model(3840, [8192, 8704], [4096, 8192], [15360]),
    "26b": model(2816, [8192, 9216], [4096, 8192], [2112]),
    "31b": model(5376, [16384, 18432], [8192, 16384], [21504]),
    "e4b-drafter": small_drafter(2560),
    "12b-drafter": large_drafter(3840, 16),
    "31b-drafter": large_drafter(5376, 32),
}


@cache
def factors(shape: Shape, rows: int) -> Tensor:
    """Factors [rows, n] of a gate, of which fewer rows are the first of more; as layers have them.

    That is in one piece: a copy would be timed with the gate.
    """
    row = torch.linspace(-1, 1, shape.n, device="cuda")
    return (row + torch.arange(rows, device="cuda")[:, None] % 7).to(BF16)


def call(shape: Shape, x: Tensor, weight: Tensor, cut: Plan | None = None) -> Tensor:
    """Run the kernel of `shape` with a plan, or its own."""
    if shape.operation == "matmul":
        return linear_triton.matmul(x, weight, cut)
    if shape.operation == "gate_up":
        return linear_triton.gate_up(x, weight, cut)
    if shape.operation == "ple_gate":
        return linear_triton.ple_gate(x, weight, factors(shape, len(x)))
    return linear_triton.head(x, weight, 30.0, cut)


def twin(shape: Shape, x: Tensor, weight: Tensor) -> Tensor:
    """The slow twin's result, with float32 products."""
    if shape.operation == "matmul":
        return linear.matmul_slow(x, weight)
    if shape.operation == "gate_up":
        return linear.gate_up_slow(x, weight)
    if shape.operation == "ple_gate":
        return linear.ple_gate_slow(x, weight, factors(shape, len(x)))
    return linear.head_slow(x, weight, 30.0)


def random_weight(shape: Shape) -> Tensor:
    """Weights that keep a product of unit rows near one."""
    weight = torch.randn((shape.n, shape.k), device="cuda", dtype=BF16)
    return weight.mul_(shape.k**-0.5)


def check_product(shape: Shape) -> None:
    """Hold the kernel against its twin, and each row against itself among other rows."""
    torch.manual_seed(0)
    weight = random_weight(shape)
    x = torch.randn((128, shape.k), device="cuda", dtype=BF16)
    many = call(shape, x, weight)
    found = many.sum(0) if shape.operation == "matmul" else many
    expected = twin(shape, x, weight)
    expected = expected[0] if shape.operation == "matmul" else expected
    apart = (found.float() - expected.float()).abs() / (1 + expected.float().abs())
    error = apart.max().item()
    bound = 1e-2 if found.dtype is BF16 else 2e-4
    if not error < bound:
        print(f"WRONG {shape}: off by {error:.2e}", flush=True)
    rows = many.transpose(0, 1) if shape.operation == "matmul" else many
    for count in ROWS_CHECKED:
        some = call(shape, x[:count], weight)
        some = some.transpose(0, 1) if shape.operation == "matmul" else some
        if not torch.equal(some, rows[:count]):
            print(f"ROWS DIFFER {shape}: {count} rows", flush=True)


def check_norms(width: int) -> None:
    """Hold the norm kernels against their twins."""
    torch.manual_seed(0)
    weights = [torch.rand(width, device="cuda") + 0.5 for _ in range(4)]
    for rows, splits in itertools.product((1, 5, 144), (1, 4)):
        x = torch.randn((rows, width), device="cuda")
        parts = torch.randn((splits, rows, width), device="cuda")
        nexts = (weights[0], None, weights[1])
        pairs = [
            (norm.norm(x, weights[0], 1e-6, BF16), norm.norm_slow(x, weights[0], 1e-6, BF16)),
        ]
        found = norm.add_norm(x, parts, weights[2], 1e-6, 0.5, nexts, BF16)
        expected = norm.add_norm_slow(x, parts, weights[2], 1e-6, 0.5, nexts, BF16)
        pairs += [
            (found.residual, expected.residual),
            *zip(found.nexts, expected.nexts, strict=True),
        ]
        rest = (weights[2], 1e-6, 0.5, nexts, BF16)
        experts = norm.add_experts_norm(x, parts, parts[:1], weights[0], weights[3], *rest)
        branches = norm.Experts(parts, parts[:1], weights[0], weights[3])
        slow = norm.add_experts_norm_slow(x, branches, *rest)
        pairs += [(experts.residual, slow.residual), *zip(experts.nexts, slow.nexts, strict=True)]
        error = max((a.float() - b.float()).abs().max().item() for a, b in pairs)
        if not error < 5e-2:
            print(f"WRONG norms of width {width}, {rows} rows, {splits} splits: {error:.2e}")


def replayed_ms(calls: Sequence[Callable[[], object]], least_ms: float = 3.0) -> float:
    """Milliseconds that one of `calls` takes where all run one after another in a graph."""
    calls[0]()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for one in calls:
            one()
    once = _timed(graph, 1)
    times = [_timed(graph, max(1, int(least_ms / once))) for _ in range(3)]
    return statistics.median(times) / len(calls)


def _timed(graph: torch.cuda.CUDAGraph, replays: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    graph.replay()
    begin.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / replays


def copy_bandwidth() -> float:
    """Bytes read and written per millisecond by a copy of 2 GiB."""
    source = torch.ones(2**30, device="cuda", dtype=torch.int16)
    target = torch.empty_like(source)
    target.copy_(source)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(8):
        target.copy_(source)
    end.record()
    end.synchronize()
    return 8 * 2 * source.nbytes / float(begin.elapsed_time(end))


def weights_beyond_cache(shape: Shape) -> list[Tensor]:
    """Copies of one weight that together exceed the L2 cache twice."""
    count = min(200, max(2, -(-CACHE_BYTES // shape.weight_bytes)))
    first = random_weight(shape)
    return [first, *(first.clone() for _ in range(count - 1))]


def measure(
    shape: Shape, rows: int, cut: Plan, weights: list[Tensor], bandwidth: float
) -> Figure | None:
    """The figure of one plan; None where it does not fit the device."""
    x = torch.randn((rows, shape.k), device="cuda", dtype=BF16)
    calls = [partial(call, shape, x, w, cut) for w in weights]
    calls *= -(-8 // len(calls))
    try:
        ms = replayed_ms(calls)
    except Exception as error:  # a plan that cannot be built is a finding, not the end of a sweep
        print(f"FAILED {shape} {rows} {cut}: {str(error)[:120]}", flush=True)
        return None
    return Figure(shape, rows, cut, ms, shape.weight_bytes / ms / bandwidth)


def candidates(shape: Shape, tile: int) -> Iterator[Plan]:
    """The plans to try besides the built-in one."""
    cuts = [(64, 64, 8, 4), (64, 128, 3, 4), (64, 128, 5, 4), (64, 256, 3, 4), (128, 64, 4, 4)]
    cuts += [(128, 64, 8, 8), (128, 128, 4, 8), (32, 128, 6, 4), (32, 256, 4, 4)]
    for block_n, block_k, stages, warps in cuts:
        stages = min(stages, 225 * 1024 // ((block_n + tile) * block_k * 2))
        if stages < 2 or shape.k % block_k:
            continue
        for splits in split_choices(shape, block_n, block_k):
            yield Plan(block_n, block_k, splits, stages, warps)


def split_choices(shape: Shape, block_n: int, block_k: int) -> list[int]:
    """Numbers of splits that give 100 to 700 programs; the outermost if none does."""
    if WHOLE[shape.operation]:
        return [1]
    tiles, steps = -(-shape.n // block_n), shape.k // block_k
    usable = [s for s in (1, 2, 3, 4, 5, 6, 8) if s <= steps]
    return [s for s in usable if 100 <= tiles * s <= 700] or usable[-1:]


def run_shape(shape: Shape, rows: list[int], sweep: bool, bandwidth: float) -> list[Figure]:
    """All figures of one shape, the built-in plan's first for each number of rows."""
    weights = weights_beyond_cache(shape)
    found: list[Figure | None] = []
    for count in rows:
        tile = row_tile(count)
        own = plan(shape.n, shape.k, tile, whole=WHOLE[shape.operation])
        tried = sweep and shape.operation != "ple_gate"  # which has no plan
        cuts = [own, *(c for c in candidates(shape, tile) if tried and c != own)]
        found += [measure(shape, count, cut, weights, bandwidth) for cut in cuts]
    return [figure for figure in found if figure]


def joint_best(figures: list[Figure], rows: list[int]) -> list[Figure]:
    """The best plan a number of rows, under one order of sums and one kind of instruction."""
    best: dict[tuple[int, int, bool], list[Figure]] = {}
    for figure in figures:
        best.setdefault((*figure.order, figure.plan.block_n < 64), []).append(figure)
    choices = []
    for group in best.values():
        fastest = [
            min((f for f in group if f.rows == r), key=lambda f: f.ms, default=None) for r in rows
        ]
        if all(fastest):
            choices.append([f for f in fastest if f])
    return min(choices, key=lambda chosen: sum(-f.share for f in chosen))


def line(label: str, figures: list[Figure]) -> str:
    """One row of the table: times and shares a number of rows."""
    cells = (
        f"{f.rows:>3}r {f.ms * 1000:7.2f}us {f.share:4.0%} {'/'.join(map(str, f.plan))}"
        for f in figures
    )
    return f"{label:<9} " + " | ".join(cells)


def layer_ms(rows: int, hidden: int = 2560, qkv: int = 3072, inner: int = 10240) -> float:
    """Milliseconds of an E4B layer's products and norms, attention left out, in their order."""
    sizes = {
        "qkv": (qkv, hidden),
        "out": (hidden, 2048),
        "gate_up": (2 * inner, hidden),
        "down": (hidden, inner),
        "ple_gate": (256, hidden),
        "ple_out": (hidden, 256),
    }
    layers = [
        {name: random_weight(Shape(name, n, k)) for name, (n, k) in sizes.items()} for _ in range(3)
    ]
    ones = torch.ones(hidden, device="cuda")
    stream = torch.randn((rows, hidden), device="cuda")
    ple = torch.randn((rows, 256), device="cuda", dtype=BF16)
    heads = torch.randn((rows, 2048), device="cuda", dtype=BF16)

    normed = stream.to(BF16)

    def add(x: Tensor, parts: Tensor, following: Tensor | None) -> tuple[Tensor, Tensor]:
        residual, (read,) = norm.add_norm(x, parts, ones, 1e-6, 0.5, (following,), BF16)
        return residual, read

    def layer(w: dict[str, Tensor]) -> None:
        linear.matmul(normed, w["qkv"])
        x, y = add(stream, linear.matmul(heads, w["out"]), ones)
        x, y = add(x, linear.matmul(linear.gate_up(y, w["gate_up"]), w["down"]), None)
        add(x, linear.matmul(linear.ple_gate(y, w["ple_gate"], ple), w["ple_out"]), ones)

    return replayed_ms([partial(layer, w) for w in layers * 4])


def report_layers(rows: list[int], bandwidth: float) -> dict[int, float]:
    """The time and share of an E4B layer, which is what single kernels' figures stand for."""
    elements = 3072 * 2560 + 2560 * 2048 + 3 * 10240 * 2560 + 2 * 256 * 2560
    found = {count: layer_ms(count) for count in rows}
    cells = (
        f"{r:>3}r {ms * 1000:7.2f}us {2 * elements / ms / bandwidth:4.0%}"
        for r, ms in found.items()
    )
    print(f"{'layer':<9} e4b, 9 kernels, no attention: " + " | ".join(cells), flush=True)
    return found


def report_norms(rows: list[int]) -> None:
    """Times of a norm with four partial sums and one next, by width."""
    ones = torch.ones(5376, device="cuda")
    for width in (1536, 2560, 5376):
        cells = []
        for count in rows:
            x = torch.randn((count, width), device="cuda")
            parts = torch.randn((4, count, width), device="cuda")
            weight = ones[:width]
            call_once = partial(norm.add_norm, x, parts, weight, 1e-6, 1.0, (weight,), BF16)
            cells.append(f"{count:>3}r {replayed_ms([call_once] * 40) * 1000:5.2f}us")
        print(f"add_norm  {width:>6} " + " | ".join(cells), flush=True)


def options() -> argparse.Namespace:
    """What to check and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="e4b", help="comma-separated: " + ", ".join(SHAPES))
    parser.add_argument("--rows", default="1,5,16,40", help="comma-separated, each up to 128")
    parser.add_argument("--sweep", action="store_true", help="try other plans than the built-in")
    parser.add_argument("--chain", action="store_true", help="time whole layers instead")
    parser.add_argument("--seconds", type=float, default=55, help="of --chain")
    return parser.parse_args()


def main() -> None:
    """Check, measure, print; full figures go to `$OUT/kernels.json`."""
    asked = options()
    rows = [int(r) for r in asked.rows.split(",")]
    if asked.chain:
        chain.report(asked.shapes.split(","), rows, asked.seconds)
        return
    shapes = list(dict.fromkeys(s for name in asked.shapes.split(",") for s in SHAPES[name]))
    began = time.perf_counter()
    for shape in shapes:
        check_product(shape)
    for width in sorted({s.k for s in shapes if s.k <= 5376}):
        check_norms(width)
    print(f"checked in {time.perf_counter() - began:.1f} s, compiling included", flush=True)
    bandwidth = copy_bandwidth()
    print(f"copy bandwidth {bandwidth / 1e9:.3f} TB/s; plan: n/k/splits/stages/warps", flush=True)
    report_norms(rows)
    if "e4b" in asked.shapes.split(","):
        report_layers(rows, bandwidth)
    figures, table = [], []
    for shape in shapes:
        found = run_shape(shape, rows, asked.sweep, bandwidth)
        name = f"{shape.operation} {shape.n}x{shape.k}"
        own = [next((f for f in found if f.rows == r), None) for r in rows]
        print(name + "\n" + line("built-in", [f for f in own if f]), flush=True)
        if asked.sweep:
            table.append(f"{name}\n" + line("best", joint_best(found, rows)))
            single = [min((f for f in found if f.rows == r), key=lambda f: f.ms) for r in rows]
            print(line("alone", single), flush=True)
        figures += found
    print(*table, f"took {time.perf_counter() - began:.0f} s", sep="\n", flush=True)
    write(figures, bandwidth)


def write(figures: list[Figure], bandwidth: float) -> None:
    """All figures as JSON, where a place for them is named."""
    if "OUT" not in os.environ:
        return
    lines = [f._asdict() | {"shape": f.shape._asdict(), "plan": f.plan._asdict()} for f in figures]
    found = {"copy_bytes_per_ms": bandwidth, "figures": lines}
    (Path(os.environ["OUT"]) / "kernels.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
