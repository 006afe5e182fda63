"""How fast packed matrices are multiplied on a GPU, and whether the results are the twins'.

    python -m tests.bench.quant [--sweep] [--formats q4_0,q8_0] [--seconds 90]

Checks first: every format against its unpacked float32 product, rows bit for bit the same among any
number of rows, unpacking bit for bit. Then milliseconds, GB/s and the share of this GPU's copy
bandwidth, on the shapes of E4B and E2B, at 1, 5, 16 and 40 rows. Each time is that of one call in a
CUDA graph of calls on different copies of the matrix, more of them than the L2 cache holds.
`--sweep` tries ways to cut the products, for that many seconds more. JSON goes to $OUT/quant.json.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels import linear as dense
from gemmarunner.quant import linear
from gemmarunner.quant.formats import Format, Packed
from gemmarunner.quant.planes import Planes
from gemmarunner.quant.tiled import Tiled, can_tile, tiled

ROWS = (1, 5, 16, 40)
_COLD_BYTES = 2**28  # of copies: five times the L2 cache of an H200


class Case(NamedTuple):
    """One matrix of a model: and the operation that reads it."""

    operation: str
    shape: tuple[int, int]
    times: int  # a token reads it


MODELS = {
    "e4b": [
        Case("gate_up", (20480, 2560), 42),
        Case("matmul", (2560, 10240), 42),
        Case("matmul", (3072, 2560), 24),
        Case("matmul", (2048, 2560), 18),
        Case("matmul", (2560, 2048), 42),
        Case("ple_gate", (256, 2560), 42),
        Case("matmul", (2560, 256), 42),
        Case("head", (262144, 2560), 1),
    ],
    "e2b": [
        Case("gate_up", (12288, 1536), 15),
        Case("gate_up", (24576, 1536), 20),
        Case("matmul", (1536, 6144), 15),
        Case("matmul", (1536, 12288), 20),
        Case("matmul", (2048, 1536), 35),
        Case("matmul", (1536, 2048), 35),
        Case("head", (262144, 1536), 1),
    ],
}


def main() -> None:
    """Prints what it found, the compact table last."""
    options = _options()
    formats = [Format(name) for name in options.formats.split(",")]
    found: dict[str, Any] = {"checks": [check(format) for format in Format]}
    for line in found["checks"]:
        print(line, flush=True)
    found["copy_gbs"] = copy_bandwidth()
    end = time.monotonic() + options.seconds
    found["rows"] = [row for format in formats for row in times(format, found["copy_gbs"], end)]
    if options.sweep:
        found["sweep"] = sweep(formats, time.monotonic() + options.seconds)
    found["tokens"] = [token(found["rows"], model, rows, format, found["copy_gbs"])
                       for model in MODELS for format in formats for rows in ROWS]  # fmt: skip
    _report(found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--formats", default="q4_0,q8_0")
    parser.add_argument("--seconds", type=float, default=90)
    return parser.parse_args()


def packed_of(format: Format, shape: tuple[int, int]) -> Packed:
    """A random matrix, made of random planes on the GPU."""
    rows, columns = shape
    block = 16 if format is Format.Q6_K else 32
    fields = 4 if format is Format.Q8_0 else 8
    steps = -(-columns // (block * fields))
    width = (rows, steps * block)
    each = (steps, rows, fields)
    above = {Format.Q5_K: torch.uint8, Format.Q6_K: torch.int16}.get(format)
    deep = format.endswith("_k")
    affine = format in (Format.Q4_K, Format.Q5_K)
    over = (-(-columns // 256), rows, 1)
    scales = _bytes(each, torch.int8) if deep else _halves(each, 0.01)
    return Packed(format, shape, Planes(
        _bytes(width, torch.int32),
        (scales.view(torch.uint8) & 63) if affine else scales,
        None if above is None else _bytes(width, above),
        (_bytes(each, torch.uint8) & 63) if affine else None,
        _halves(over, 0.0005) if deep else None,
        _halves(over, 0.005) if affine else None,
    ))  # fmt: skip


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    last = shape[-1] * dtype.itemsize
    return torch.randint(0, 256, (*shape[:-1], last), dtype=torch.uint8, device="cuda").view(dtype)


def _halves(shape: tuple[int, ...], size: float) -> Tensor:
    return (torch.rand(shape, device="cuda") * size).half()


def check(format: Format) -> dict[str, Any]:
    """Largest relative errors against the twins, and whether rows and unpacking are exact."""
    columns = 1280 if format is not Format.Q8_0 else 1184
    packed = packed_of(format, (208, columns))
    wide = packed.dequantized(torch.float32)
    x = torch.randn(40, columns, device="cuda").bfloat16()
    ple = torch.randn(40, 208, device="cuda").bfloat16()
    sums = linear.matmul(x, packed).sum(0)
    pairs = {
        "matmul": (sums.double(), x.double() @ wide.double().t()),
        "gate_up": (linear.gate_up(x, packed), dense.gate_up_slow(x.float(), wide)),
        "ple_gate": (linear.ple_gate(x, packed, ple), dense.ple_gate_slow(x.float(), wide, ple)),
        "head": (linear.head(x, packed, 30.0), dense.head_slow(x.float(), wide, 30.0)),
    }
    errors = {name: _error(*pair) for name, pair in pairs.items()}
    same = _rows_equal(x, packed)
    exact = torch.equal(linear.unpacked(packed, torch.float32), wide)
    limits = {"matmul": 1e-5, "head": 1e-4}
    good = same and exact and all(e <= limits.get(n, 2**-7) for n, e in errors.items())
    return {"format": format.value, "ok": good, "rows_equal": same, "unpack_exact": exact, **errors}


def _error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


def _rows_equal(x: Tensor, packed: Packed) -> bool:
    """Among any number of rows and in tiles of any size: the same bits."""
    own = linear.tiling(packed, False)
    whole = linear.matmul(x, packed)
    for n, columns in ((1, 16), (33, 16), (40, 32), (17, 64), (5, 32)):
        tiles = own._replace(columns=columns, stages=2)
        for cut in (tiles, None):
            if not torch.equal(whole[:, :n], linear.matmul(x[:n], packed, cut)):
                return False
    return True


def call(case: Case, packed: Packed | Tiled, x: Tensor, cut: linear.Tiling | None) -> Tensor:
    """One operation of the model."""
    if isinstance(packed, Tiled):
        return _tiled_call(case, packed, x)
    match case.operation:
        case "gate_up":
            return linear.gate_up(x, packed, cut)
        case "ple_gate":
            return linear.ple_gate(x, packed, x[:, : packed.shape[0]].contiguous())
        case "head":
            return linear.head(x, packed, 30.0, cut)
        case _:
            return linear.matmul(x, packed, cut)


def _tiled_call(case: Case, matrix: Tiled, x: Tensor) -> Tensor:
    match case.operation:
        case "gate_up":
            return matrix.gate_up(x)
        case "ple_gate":
            return matrix.ple_gate(x, x[:, : matrix.shape[0]].contiguous())
        case "head":
            return matrix.head(x, 30.0)
        case _:
            return matrix.matmul(x)


def copies(format: Format, case: Case) -> list[Packed | Tiled]:
    """The matrix as a GPU keeps it, so often that no cache holds all."""
    first = packed_of(format, case.shape)
    others = max(1, min(64, _COLD_BYTES // first.nbytes))
    packed = [first] + [_copy(first) for _ in range(others)]
    if not can_tile(first):
        return [*packed]
    return [tiled(one, gated=case.operation == "gate_up") for one in packed]


def _copy(packed: Packed) -> Packed:
    return Packed(packed.format, packed.shape, packed.planes.mapped(torch.clone))


def milliseconds(run: Callable[[], None], calls: int) -> float:
    """The median time of one of the `calls` that `run` makes, replayed as one CUDA graph."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    spans = []
    for _ in range(7):
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        spans.append(float(begin.elapsed_time(end)))
    return statistics.median(spans) / calls


def measured(
    case: Case,
    matrices: list[Packed] | list[Packed | Tiled],
    rows: int,
    cut: linear.Tiling | None = None,
) -> float:
    """Milliseconds of one call on `rows` rows."""
    x = torch.randn(rows, case.shape[1], device="cuda").bfloat16()

    def run() -> None:
        for packed in matrices:
            call(case, packed, x, cut)

    return milliseconds(run, len(matrices))


def copy_bandwidth() -> float:
    """GB/s of reading and writing, in copies of 2 GiB."""
    source = torch.zeros(2**29, dtype=torch.float32, device="cuda")  # of bytes, it is slower
    to = torch.empty_like(source)
    spans = []
    for _ in range(8):
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        to.copy_(source)
        end.record()
        end.synchronize()
        spans.append(float(begin.elapsed_time(end)))
    return 2 * source.nbytes / 1e6 / min(spans)


def times(format: Format, copy: float, end: float) -> list[dict[str, Any]]:
    """The default cuts on all shapes and rows."""
    found: list[dict[str, Any]] = []
    for model, cases in MODELS.items():
        for case in cases:
            if time.monotonic() > end:
                return found
            matrices = copies(format, case)
            for rows in ROWS:
                ms = measured(case, matrices, rows)
                gbs = matrices[0].nbytes / 1e6 / ms
                found.append({
                    "model": model, "format": format.value, "operation": case.operation,
                    "shape": case.shape, "rows": rows, "us": round(ms * 1000, 2),
                    "gbs": round(gbs), "share": round(gbs / copy, 3), "count": case.times,
                    "bytes": matrices[0].nbytes,
                })  # fmt: skip
    return found


def token(
    rows: list[dict[str, Any]], model: str, count: int, format: Format, copy: float
) -> dict[str, Any]:
    """All of a model's products together, as one step of `count` rows reads them."""
    mine = [
        row
        for row in rows
        if (row["model"], row["rows"], row["format"]) == (model, count, format.value)
    ]
    ms = sum(row["us"] * row["count"] for row in mine) / 1000
    gbs = sum(row["bytes"] * row["count"] for row in mine) / 1e6 / ms if ms else 0.0
    return {"model": model, "format": format.value, "rows": count, "ms": round(ms, 3),
            "gbs": round(gbs), "share": round(gbs / copy, 3)}  # fmt: skip


def sweep(formats: list[Format], end: float) -> list[dict[str, Any]]:
    """Times of other cuts, the most important matrices first, until the seconds are over.

    Of formats that are not laid out in tiles.
    """
    found: list[dict[str, Any]] = []
    for model in MODELS.values():
        for format in formats:
            for case in sorted(model, key=lambda c: -c.times * c.shape[0] * c.shape[1]):
                matrices = [m for m in copies(format, case) if isinstance(m, Packed)]
                if not matrices:
                    break
                for rows, cut in _cuts(case, matrices[0]):
                    if time.monotonic() > end:
                        return found
                    found.append(_tried(format, case, matrices, rows, cut))
    return found


def _tried(
    format: Format, case: Case, matrices: list[Packed], rows: int, cut: linear.Tiling
) -> dict[str, Any]:
    row = {
        "format": format.value,
        "operation": case.operation,
        "shape": case.shape,
        "count": rows,
        **cut._asdict(),
    }
    try:
        ms = measured(case, matrices, rows, cut)
    except Exception as error:  # too much shared memory for this GPU: a cut to leave out
        return {**row, "us": 1e9, "error": str(error)[:80]}
    return {**row, "us": round(ms * 1000, 2), "gbs": round(matrices[0].nbytes / 1e6 / ms)}


def _cuts(case: Case, packed: Packed) -> list[tuple[int, linear.Tiling]]:
    """Rows and cuts: neighbours of the own one at 5 rows, then tiles of activations at 16, 40."""
    own = linear.tiling(packed, case.operation != "matmul")
    steps = linear.step_count(packed)
    whole = case.operation != "matmul"
    splits = {1} if whole else {max(1, own.splits // 2), own.splits, min(8, steps)}
    few = [(5, linear.Tiling(s, 16, stages)) for s in sorted(splits) for stages in (2, 3, 4)]
    deep = [(5, own._replace(rows=128, stages=3))]  # still four warps
    tiles = ((16, 16, 4), (40, 16, 3), (40, 32, 3), (40, 64, 3), (40, 64, 2))
    wide = [(rows, own._replace(columns=columns, stages=s)) for rows, columns, s in tiles]
    return few + deep + wide


def _report(found: dict[str, Any]) -> None:
    out = Path(os.environ.get("OUT", "."))
    (out / "quant.json").write_text(json.dumps(found, indent=1))
    best: dict[Any, dict[str, Any]] = {}
    for row in found.get("sweep", []):
        key = (row["format"], row["operation"], row["shape"], row["count"])
        best[key] = min(best.get(key, row), row, key=lambda r: r["us"])
    for row in best.values():
        print("best cut", row)
    print(f"checks ok: {all(line['ok'] for line in found['checks'])}")
    print(f"copy {found['copy_gbs']:.0f} GB/s; us (share of copy) at rows {ROWS}")
    lines: dict[str, list[str]] = {}
    for row in found["rows"]:
        name = f"{row['format']} {row['model']} {row['operation']} {row['shape']}"
        lines.setdefault(name, []).append(f"{row['us']:8.1f} ({row['share']:.2f})")
    for name, cells in lines.items():
        print(name, *cells)
    for row in found["tokens"]:
        print("all products", *row.values())


if __name__ == "__main__":
    main()
