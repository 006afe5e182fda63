"""Checks the kernels around the matrix products on a GPU, then times them at the real shapes.

`PYTHONPATH=daemon:. python -m tests.bench.choosing` needs torch, triton and numpy only. It covers
embedding, experts, centroid head, choice, draft and acceptance. Each is first held against its slow
twin, on the device, and choices against the engine's sampler; a row is held against itself alone. A
figure is microseconds a call within a CUDA graph of many calls, over several copies of the inputs
where they would otherwise stay in the L2 cache. `$OUT/choosing.json` then holds all figures.
"""

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemmarunner.engine.noise import stream_key
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler, Stream
from gemmarunner.kernels import accept, centroid, choose, embed, experts
from gemmarunner.kernels.choose import Choosing

VOCAB = 262_144
BF16 = torch.bfloat16
COPY = 4.3e12  # bytes a second an H200 copies
CALLS = 40  # in a graph

Figures = dict[str, Any]


def randn(*shape: int, dtype: torch.dtype = BF16, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape, device="cuda", dtype=torch.float32) * scale).to(dtype)


def choosing(batch: int, *, greedy: bool = False, position: int = 900, **how: Any) -> Choosing:
    """`batch` requests with Gemma's settings, or others, seeds 0 and on."""
    asked = Sampling(temperature=0.0) if greedy else Sampling(**how)
    keys = [stream_key(seed, Stream.CHOICE) for seed in range(batch)]

    def filled(value: float, dtype: torch.dtype) -> Tensor:
        return torch.full((batch,), value, dtype=dtype, device="cuda")

    return Choosing(
        filled(asked.temperature, torch.float32),
        filled(asked.top_k, torch.int32),
        filled(asked.top_p, torch.float32),
        filled(asked.min_p, torch.float32),
        torch.tensor([key - (1 << 64) if key >> 63 else key for key in keys], device="cuda"),
        filled(position, torch.int32),
    )


def microseconds(calls: list[Callable[[], object]]) -> float:
    """Median time of one call, the calls taking turns inside a CUDA graph."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in itertools.islice(itertools.cycle(calls), CALLS):
            call()
    samples: list[float] = []
    for _ in range(7):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "be")  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) * 1000 / CALLS)
    return statistics.median(samples[1:])


# -- checks ----------------------------------------------------------------------------------------


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-2) -> bool:
    difference = (actual.float() - expected.float()).abs().max().item()
    return difference <= tolerance * max(1e-6, expected.float().abs().max().item())


def logits_of(kind: str, rows: int) -> Tensor:
    """Rows of one nature, as a head with a softcap of 30 may give them."""
    x = randn(rows, VOCAB, dtype=torch.float32, scale=4)
    match kind:
        case "coarse":
            x = x.mul_(4).round_().div_(4)
        case "peaked":
            x[:, ::9973] += 15
        case "one hot":
            x[:, 4242] = 90
        case "masked":
            x[:, 50:] = -torch.inf
        case "rising":
            x = x.sort(-1).values
    return x


def sampled_differences(kind: str, rows: int, **how: Any) -> dict[str, int]:
    """How many of `rows` tokens differ from the twin's and from the sampler's, and overflow."""
    logits = logits_of(kind, rows)
    batch = choosing(1, **how)
    tokens, overflow = choose.choose(logits, batch, rows)
    if bool(overflow):
        return {"rows": rows, "overflow": 1}
    twin, _ = choose.choose_slow(logits, batch, rows)
    asked = Sampling(seed=0, **({"temperature": 0.0} if how.pop("greedy", False) else how))
    sampler = Sampler(asked, vocab=VOCAB, device=logits.device)
    chosen = sampler.choose(logits.clone(), None, 900)
    return {
        "rows": rows,
        "twin": int((twin != tokens).sum()),
        "sampler": int((chosen != tokens).sum()),
    }


def check_choose() -> Iterator[tuple[str, object]]:
    settings: list[dict[str, Any]] = [
        {},
        {"greedy": True},
        {"temperature": 0.7, "top_k": 128, "top_p": 1.0, "min_p": 0.02},
        {"temperature": 1e-3, "top_k": 40, "top_p": 0.5},
    ]
    for kind in ("random", "coarse", "peaked", "one hot", "masked", "rising"):
        for how in settings:
            label = ",".join(f"{key}={value}" for key, value in how.items()) or "default"
            yield f"choose {kind} {label}", sampled_differences(kind, 64, **how)
    totals = {"rows": 0, "twin": 0, "sampler": 0}
    for _ in range(20):
        for key, value in sampled_differences("random", 128).items():
            totals[key] = totals.get(key, 0) + value
    yield "choose random default, many", totals
    logits, batch = logits_of("random", 40), choosing(8)
    every, _ = choose.choose(logits, batch, 5)
    alone = Choosing(*(field[3:4] for field in batch))
    yield "choose row alone", torch.equal(every[15:20], choose.choose(logits[15:20], alone, 5)[0])


def check_draft() -> Iterator[tuple[str, object]]:
    batch = choosing(4)
    ids = torch.stack([torch.randperm(VOCAB, device="cuda")[:4096] for _ in range(4)])
    few, many = randn(4, 4096, dtype=torch.float32, scale=3), logits_of("random", 4)
    for how in (batch, choosing(4, greedy=True)):
        same = torch.equal(choose.draft(few, ids, how, 2), choose.draft_slow(few, ids, how, 2))
        yield "draft centroid", same
        same = torch.equal(choose.draft(many, None, how, 2), choose.draft_slow(many, None, how, 2))
        yield "draft dense", same


def check_accept() -> Iterator[tuple[str, object]]:
    drafts = torch.randint(1, 3, (64, 4), device="cuda")
    chosen = torch.randint(1, 3, (64, 5), device="cuda")
    depth = torch.randint(0, 5, (64,), device="cuda", dtype=torch.int32)
    hidden = randn(64, 5, 2560)
    for shares in (None, torch.tensor([0.9, 0.7, 0.5, 0.3], device="cuda")):
        how = choosing(64)
        one = accept.accept(drafts, chosen, depth, hidden, shares, how)
        other = accept.accept_slow(drafts, chosen, depth, hidden, shares, how)
        yield "accept", all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def check_embed() -> Iterator[tuple[str, object]]:
    table, ids = randn(5000, 2560), torch.randint(0, 5000, (40,), device="cuda")
    yield "embed", torch.equal(embed.embed(ids, table, 50.5), embed.embed_slow(ids, table, 50.5))
    wide, context = randn(5000, 42 * 256), randn(4, 40, 42 * 256, dtype=torch.float32)
    weight = randn(256, dtype=torch.float32)
    expected = embed.ple_rows_slow(ids, wide, context, weight, 1e-6, 11.3, BF16)
    for name, source in (("device", wide), ("pinned", wide.cpu().pin_memory())):
        rows = embed.ple_rows(ids, source, context, weight, 1e-6, 11.3, BF16)
        yield f"ple_rows {name}", close(rows, expected)


def check_centroid() -> Iterator[tuple[str, object]]:
    x, centroids, clusters, ids = head()
    logits, tokens = centroid.centroid_logits(x(3), centroids, clusters, ids, 32)
    torch.manual_seed(0)
    expected, same = centroid.centroid_logits_slow(x(3), centroids, clusters, ids, 32)
    yield "centroid", bool((tokens == same).float().mean() > 0.99) and close(logits, expected)


def check_experts() -> Iterator[tuple[str, object]]:
    gate_up, down, router, scale = moe()
    for rows in (1, 5, 16, 17, 40, 128):
        x = randn(rows, 2816)
        shares, chosen = experts.route(x, router, scale, 8)
        expected_shares, expected = experts.route_slow(x, router, scale, 8)
        same = bool((expected == chosen).all(1).float().mean() > 0.95)
        yield f"route {rows}", same and close(shares, expected_shares)
        out = experts.experts(x, gate_up, down, shares, chosen)
        twin = experts.experts_slow(x[:4], gate_up, down, shares[:4], chosen[:4])
        yield f"experts {rows}", close(out[:, :4], twin)
        alone = experts.experts(x[-1:], gate_up, down, shares[-1:], chosen[-1:])
        yield f"experts row alone of {rows}", torch.equal(out[:, -1:], alone)
    x = randn(300, 2816)
    shares, chosen = experts.route(x, router, scale, 8)
    out = experts.experts(x, gate_up, down, shares, chosen).sum(0)
    twin = experts.experts_slow(x[:4], gate_up, down, shares[:4], chosen[:4]).sum(0)
    yield "experts 300", close(out[:4], twin)


# -- times -----------------------------------------------------------------------------------------


def head() -> tuple[Callable[[int], Tensor], Tensor, Tensor, Tensor]:
    """A centroid head of the small drafters; rows are the same at every call."""

    def rows(count: int) -> Tensor:
        torch.manual_seed(7)
        return randn(count, 256)

    ids = torch.randperm(VOCAB, device="cuda").view(2048, 128)
    return rows, randn(2048, 256), randn(2048, 128, 256, scale=0.1), ids


def moe(copies: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The experts, router and scales of one layer of 26B."""
    gate_up = randn(128, 1408, 2816, scale=0.02)
    down = randn(128, 2816, 704, scale=0.03)
    return gate_up, down, randn(128, 2816, scale=0.05), torch.ones(128, device="cuda")


def time_choose() -> Iterator[tuple[str, float, float]]:
    for rows, per in ((1, 1), (5, 5), (40, 5), (144, 9)):
        copies = [logits_of("random", rows) for _ in range(max(1, min(8, 160 // rows)))]
        for greedy in (False, True):
            how = choosing(rows // per, greedy=greedy)
            calls = [lambda x=x, how=how, per=per: choose.choose(x, how, per) for x in copies]
            name = f"choose {'greedy' if greedy else 'sampled'} R={rows}"
            yield name, microseconds(calls), rows * VOCAB * 4  # type: ignore[arg-type]


def time_draft() -> Iterator[tuple[str, float, float]]:
    for batch in (1, 8):
        ids = torch.stack([torch.randperm(VOCAB, device="cuda")[:4096] for _ in range(batch)])
        logits, how = randn(batch, 4096, dtype=torch.float32, scale=3), choosing(batch)
        dense = logits_of("random", batch)
        yield (
            f"draft centroid B={batch}",
            microseconds(
                [lambda x=logits, i=ids, h=how: choose.draft(x, i, h, 1)]  # type: ignore[misc]
            ),
            batch * 4096 * 12,
        )
        yield (
            f"draft dense B={batch}",
            microseconds(
                [lambda x=dense, h=how: choose.draft(x, None, h, 1)]  # type: ignore[misc]
            ),
            batch * VOCAB * 4,
        )


def time_small() -> Iterator[tuple[str, float, float]]:
    x, centroids, clusters, ids = head()
    for batch in (1, 8):
        rows = [x(batch), randn(batch, 256), randn(batch, 256)]
        calls: list[Callable[[], object]] = [
            lambda n=n: centroid.centroid_logits(n, centroids, clusters, ids, 32)  # type: ignore[misc]
            for n in rows
        ]
        yield f"centroid B={batch}", microseconds(calls), 2048 * 512 + batch * 4096 * 512
    table = randn(VOCAB // 4, 2560)
    wide, weight = randn(20_000, 42 * 256), randn(256, dtype=torch.float32)
    pinned = wide.cpu().pin_memory()
    for rows_count in (1, 5, 40):
        tokens = torch.randint(0, 20_000, (rows_count,), device="cuda")
        context = randn(4, rows_count, 42 * 256, dtype=torch.float32)
        yield (
            f"embed R={rows_count}",
            microseconds(
                [lambda t=tokens: embed.embed(t, table, 50.5)]  # type: ignore[misc]
            ),
            rows_count * 2560 * 6,
        )
        for name, source in (("device", wide), ("pinned", pinned)):
            yield (
                f"ple_rows {name} R={rows_count}",
                microseconds(
                    [
                        lambda t=tokens, s=source, c=context: embed.ple_rows(  # type: ignore[misc]
                            t, s, c, weight, 1e-6, 11.3, BF16
                        )
                    ]
                ),
                rows_count * 42 * 256 * 20,
            )
    for batch in (1, 8):
        drafts, chosen = (torch.zeros(batch, n, dtype=torch.int64, device="cuda") for n in (4, 5))
        depth = torch.full((batch,), 4, dtype=torch.int32, device="cuda")
        hidden = randn(batch, 5, 2560)
        yield (
            f"accept B={batch}",
            microseconds(
                [lambda d=drafts, c=chosen, k=depth, h=hidden: accept.accept(d, c, k, h)]  # type: ignore[misc]
            ),
            batch * 2560 * 4,
        )


def time_experts() -> Iterator[tuple[str, float, float]]:
    gate_up, down, router, scale = moe()
    for rows in (1, 2, 5, 16, 40, 128, 1024):
        inputs = [randn(rows, 2816) for _ in range(4)]
        routes = [experts.route(x, router, scale, 8) for x in inputs]
        hit = statistics.mean(
            torch.bincount(chosen.flatten()).count_nonzero().item() for _, chosen in routes
        )
        if rows <= 128:
            yield (
                f"route R={rows}",
                microseconds(
                    [lambda x=x: experts.route(x, router, scale, 8) for x in inputs]  # type: ignore[misc]
                ),
                128 * 2816 * 2,
            )
        yield (
            f"experts R={rows} ({hit:.0f} hit)",
            microseconds(
                [
                    lambda x=x, s=s, c=c: experts.experts(x, gate_up, down, s, c)  # type: ignore[misc]
                    for x, (s, c) in zip(inputs, routes, strict=True)
                ]
            ),
            hit * 3 * 704 * 2816 * 2,
        )


CHECKS: tuple[Callable[[], Iterator[Any]], ...] = (
    check_choose,
    check_draft,
    check_accept,
    check_embed,
    check_centroid,
    check_experts,
)
TIMES: tuple[Callable[[], Iterator[Any]], ...] = (time_choose, time_draft, time_small, time_experts)


def guarded(part: Callable[[], Iterator[Any]], found: list[Any]) -> None:
    """Collects what a part yields; a part that fails does not take the others with it."""
    started = time.perf_counter()
    try:
        for item in part():
            found.append(item)
    except Exception as error:  # the other parts' figures are worth having all the same
        found.append((part.__name__, f"FAILED {type(error).__name__}: {str(error)[:300]}", 0))
    print(f"[{part.__name__} {time.perf_counter() - started:.1f} s]", flush=True)


def wrong(result: object) -> bool:
    """Whether a check's result needs a look."""
    if isinstance(result, dict):
        return bool(result.get("twin") or result.get("sampler") or result.get("overflow"))
    return result is not True


def main() -> None:
    """Check all, time all, print one table."""
    torch.manual_seed(0)
    checks: list[Any] = []
    times: list[Any] = []
    with torch.inference_mode():
        for part in CHECKS:
            guarded(part, checks)
        for part in TIMES:
            guarded(part, times)
    for name, result, *_ in checks:
        if wrong(result):
            print(f"  ?  {name}: {result}")
    print(f"{len(checks)} checks, {sum(wrong(result) for _, result, *_ in checks)} to look at")
    for name, took, size in times:
        if isinstance(took, str):
            print(f"{name}: {took}")
            continue
        floor = size / COPY * 1e6
        print(f"{name:28s} {took:8.2f} us   floor {floor:7.2f} us   x{took / floor:6.2f}")
    if os.environ.get("OUT"):
        path = Path(os.environ["OUT"]) / "choosing.json"
        path.write_text(json.dumps({"checks": checks, "times": times}, indent=1))


if __name__ == "__main__":
    main()
