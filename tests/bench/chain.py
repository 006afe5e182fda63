"""Times a target's layers one after another, as a step runs them, under several tunings.

`PYTHONPATH=daemon:. python -m tests.bench.kernels --chain [--shapes e4b] [--rows 1,5,16,40]`
All layers with weights of their own and a short cache, in one CUDA graph; embedding and head are
left out. Results must be those of the first tuning bit for bit, unless a tuning orders sums anew.
"""

import itertools
import time
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.cuda.layer import Layer, LayerPlan, as_it_is, layer_take
from gemmarunner.kernels import linear_plan
from gemmarunner.kernels.attention import attend, chunk_for
from gemmarunner.kernels.linear_plan import Held, Plan, Tuning
from gemmarunner.kernels.norm import norm
from gemmarunner.kernels.rows import Rows
from tests.bench import shapes

BF16 = torch.bfloat16
RING = 640
POSITION = 500
KINDS = ("matmul", "gate_up", "down")
UP = (20480, 2560)  # of E4B


class Variant(NamedTuple):
    """A tuning to try; `moves`: it orders sums anew, so that results may differ."""

    name: str
    tuning: Tuning
    moves: bool = False


class Chain:
    """The layers of a target with synthetic weights."""

    def __init__(self, name: str) -> None:
        self.config = config = shapes.target_config(name)
        self.layers: list[Layer] = []
        self.caches: dict[int, Tensor] = {}
        take = shapes.Synthetic(torch.device("cuda"), BF16).take
        for index, layer in enumerate(config.layers):
            plan = LayerPlan(
                layer,
                config.hidden,
                config.heads,
                config.eps,
                BF16,
                owns_kv=layer.donor is None,
                ple_dim=config.ple_dim,
                moe=config.moe,
            )
            self.layers.append(Layer(plan, layer_take(take, index), as_it_is))
            if layer.donor is None:
                size = (1, 2, layer.kv_heads, RING, layer.head_dim)
                self.caches[index] = torch.randn(size, device="cuda").to(BF16)

    def run(self, x: Tensor, ple: Tensor, rows: Rows) -> Tensor:
        """The residual stream [R, hidden] f32 after all layers."""
        eps = self.config.eps
        normed = norm(x, self.layers[0].input_norm, eps, BF16)
        for index, layer in enumerate(self.layers):
            facts = self.config.layers[index]
            own = facts.donor is None
            cache = self.caches[index if facts.donor is None else facts.donor]
            q = layer.queries(normed, rows, cache if own else None)
            window = self.config.window if facts.kind == "sliding" else None
            attended = attend(q, cache, rows, window=window, lag=0, chunk=chunk_for(RING))
            after = self.layers[(index + 1) % len(self.layers)].input_norm
            x, (normed,) = layer.finish(x, attended, ple, after)
        return x


def variants(name: str) -> list[Variant]:
    """What to try, the built-in tuning first and the most promising next."""
    found = [Variant("built-in", Tuning())]
    found.append(Variant("held none", _held(0)))
    found.append(Variant("held two", _held(2)))
    if name != "e4b":
        return found
    for kind in KINDS:
        found += [Variant(f"held {kind} {n}", Tuning(Held()._replace(**{kind: n}))) for n in (0, 2)]
    found.append(Variant("held gate_up 3", Tuning(Held(gate_up=3))))
    for held, stages in itertools.product((1, 2), (2, 4)):
        cut = (UP, Plan(64, 128, 1, stages, 4))
        label = f"gate_up {stages} stages, {held} held"
        found.append(Variant(label, Tuning(Held(gate_up=held), (cut,))))
    qkv = ((3072, 2560), Plan(64, 128, 4, 3, 4))
    found.append(Variant("qkv 4 splits, 2 held", Tuning(Held(matmul=2), (qkv,)), moves=True))
    return found


def _held(tiles: int) -> Tuning:
    return Tuning(Held(*[tiles] * len(Held._fields)))


def timed(chain: Chain, count: int) -> tuple[float, Tensor]:
    """Microseconds a layer for `count` rows of one sequence, and the result's residual stream."""
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn((count, chain.config.hidden), device="cuda", generator=generator)
    width = chain.config.ple_dim or 1
    ple = torch.randn((count, width), device="cuda", generator=generator).to(BF16)
    rows = Rows(
        torch.zeros(1, device="cuda", dtype=torch.int32),
        torch.full((1,), POSITION, device="cuda", dtype=torch.int32),
        count,
    )
    chain.run(x, ple, rows)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = chain.run(x, ple, rows)
    for _ in range(3):
        graph.replay()
    times = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(4):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)) / 4)
    return sorted(times)[2] * 1000 / len(chain.layers), out.clone()


@torch.inference_mode()
def report(names: list[str], counts: list[int], seconds: float) -> None:
    """Print one line a tuning; stop trying once `seconds` are over."""
    began = time.perf_counter()
    for name in names:
        chain = Chain(name)
        read = sum(_bytes(layer) for layer in chain.layers) / len(chain.layers)
        print(f"{name}: {read / 1e6:.1f} MB a layer, {read / 4.25e6:.1f} us at 4.25 TB/s")
        first: dict[int, Tensor] = {}
        for variant in variants(name):
            if time.perf_counter() - began > seconds:
                print("out of time")
                return
            linear_plan.tuning = variant.tuning
            _try(chain, variant, counts, first)
        linear_plan.tuning = Tuning()
        print(f"{name} took until {time.perf_counter() - began:.0f} s", flush=True)
        del chain
        torch.cuda.empty_cache()


def _try(chain: Chain, variant: Variant, counts: list[int], first: dict[int, Tensor]) -> None:
    cells = []
    for count in counts:
        try:
            spent, out = timed(chain, count)
        except Exception as error:  # a tuning that cannot be built is a finding
            print(f"FAILED {variant.name}: {str(error)[:200]}", flush=True)
            return
        apart = not torch.equal(out, first.setdefault(count, out))
        bad = " WRONG" if (apart and not variant.moves) or not out.isfinite().all() else ""
        cells.append(f"{count:>3}r {spent:6.2f}us{bad}")
    print(f"  {variant.name:<28} " + " | ".join(cells), flush=True)


def _bytes(layer: Layer) -> int:
    tensors = [value for value in vars(layer).values() if isinstance(value, Tensor)]
    if layer._ple is not None:
        tensors += [value for value in vars(layer._ple).values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors)
