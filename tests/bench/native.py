"""Times the native library's products on this CPU, by kind of weights and number of rows.

`PYTHONPATH=daemon:. python -m tests.bench.native [--threads N]` prints a JSON line a kind: GB/s of
weights read at 1 to 16 rows, of a matrix larger than the caches, the best of several runs; torch's
own product of the same bf16 weights in float32 beside it. A compiler makes the library first where
the package was not installed.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from gemmarunner.quant.formats import Format, Packed, from_gguf
from tests.fakes.gguf_pairs import random_blocks

SHAPE = (65536, 1536)
ROWS = (1, 2, 4, 5, 8, 16)
RUNS = 9
_SOURCES = Path("daemon/gemmarunner/native")


def main() -> None:
    """Prints the figures."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(options.parse_args().threads)
    _build()
    from gemmarunner.native.library import status
    from gemmarunner.native.linear import Native

    weight = torch.randn(SHAPE).bfloat16().float()
    for name in ("bf16", *Format):
        multiply = Native(weight if name == "bf16" else _blocks(Format(name)))
        figures = {rows: _rate(multiply, rows, multiply.nbytes) for rows in ROWS}
        print(json.dumps({"kind": name, "kernels": status(), "gb_s": figures}))
    plain = {rows: _rate(lambda x: x @ weight.T, rows, weight.nbytes) for rows in ROWS}
    print(json.dumps({"kind": "float32", "kernels": "torch", "gb_s": plain}))


def _build() -> None:
    if not list(_SOURCES.glob("_kernels*.so")):
        sources = sorted(str(path) for path in (_SOURCES / "src").glob("*.c"))
        out = str(_SOURCES / "_kernels.so")
        flags = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-o", out)
        subprocess.run(("cc", *flags, *sources, "-lpthread", "-lm"), check=True)


def _blocks(form: Format) -> Packed:
    """Random codes and scales, which are all that a kernel sees."""
    data = random_blocks(*SHAPE, GGMLQuantizationType[form.name])
    return from_gguf(form, torch.from_numpy(data), SHAPE)


def _rate(multiply: Callable[[Tensor], Tensor], rows: int, nbytes: int) -> float:
    x, best = torch.randn(rows, SHAPE[1]), float("inf")
    for _ in range(RUNS):
        begun = time.perf_counter()
        multiply(x)
        best = min(best, time.perf_counter() - begun)
    return round(nbytes / best / 1e9, 1)


if __name__ == "__main__":
    main()
