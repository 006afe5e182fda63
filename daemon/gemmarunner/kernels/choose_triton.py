"""Triton kernels of `choose`: the largest of each 32 logits, then one program a row draws.

The first launch reads all logits once and keeps the maximum of every group of 32. The second never
sees most of them: with the groups dealt into 256 piles, the k-th largest of the piles' maxima is a
lower bound for the k-th largest logit, since k logits at least are as large. Only groups that reach
it are read again, only logits that reach it are sorted, and ids that follow one another lie in
different piles, so that a run of likely tokens does not blunt the bound.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from gemmarunner.kernels.choose import GUESSED, MAX_LIST, MAX_TOP_K, Choosing
from gemmarunner.kernels.launch import launch
from gemmarunner.kernels.noise_triton import uniform
from gemmarunner.kernels.ordered_triton import packed, unpacked_index, unpacked_value

GROUP = 32  # logits
_TILE = 64  # groups a program of the first launch
_PILES = 256
_DIRECT = 4096  # columns up to which one launch does it all
_NONE = tl.constexpr(-(1 << 63))


def launch_choose(
    logits: Tensor, how: Choosing, per: int, suppressed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `choose.choose`."""
    fresh = torch.zeros_like if logits.shape[1] <= _DIRECT else torch.empty_like
    overflow = fresh(how.key, dtype=torch.bool)
    tokens = _draw_rows(logits, None, how, per, 0, suppressed, MAX_TOP_K, overflow)
    return tokens, overflow


def launch_draft(
    logits: Tensor, ids: Tensor | None, how: Choosing, offset: int, suppressed: Tensor | None
) -> Tensor:
    """See `choose.draft`."""
    if ids is not None:
        suppressed = None
    overflow = torch.empty_like(how.key, dtype=torch.bool)
    return _draw_rows(logits, ids, how, 1, offset, suppressed, GUESSED, overflow)


def _draw_rows(
    logits: Tensor,
    ids: Tensor | None,
    how: Choosing,
    per: int,
    offset: int,
    suppressed: Tensor | None,
    most: int,
    overflow: Tensor,
) -> Tensor:
    rows, columns = logits.shape
    direct = columns <= _DIRECT
    maxima = logits if direct else _maxima(logits, suppressed, overflow, per)
    width = triton.next_power_of_2(maxima.shape[1])
    device = logits.device
    groups = torch.empty(1 if direct else rows * width, dtype=torch.int32, device=device)
    keys = torch.empty(rows, MAX_LIST, dtype=torch.int64, device=device)
    tokens = torch.empty(rows, dtype=torch.int64, device=device)
    launch(
        _draw,
        (rows,),
        *(logits, maxima, tokens if ids is None else ids, *how, offset),
        *(tokens if suppressed is None else suppressed, groups, keys, tokens, overflow),
        *(per, columns, maxima.shape[1]),
        WIDTH=width,
        PILES=min(_PILES, width),
        MOST=most,
        LIST=MAX_LIST,
        GROUPED=0 if direct else GROUP,
        HAS_IDS=ids is not None,
        SUPPRESSED=0 if suppressed is None else suppressed.shape[0],
        num_warps=8,
    )
    return tokens


def _maxima(logits: Tensor, suppressed: Tensor | None, overflow: Tensor, per: int) -> Tensor:
    """The largest logit of each group [R, groups]; no row has overflowed so far."""
    rows, columns = logits.shape
    groups = triton.cdiv(columns, GROUP)
    maxima = torch.empty(rows, groups, dtype=torch.float32, device=logits.device)
    launch(
        _group_maxima,
        (triton.cdiv(groups, _TILE), rows),
        *(
            logits,
            maxima if suppressed is None else suppressed,
            maxima,
            overflow,
            per,
            columns,
            groups,
        ),
        GROUP=GROUP,
        TILE=_TILE,
        SUPPRESSED=0 if suppressed is None else suppressed.shape[0],
        num_warps=4,
    )
    return maxima


@triton.jit  # type: ignore[untyped-decorator]
def _without(x, column, suppressed, SUPPRESSED: tl.constexpr):  # type: ignore[no-untyped-def]
    for index in tl.static_range(SUPPRESSED):
        x = tl.where(column == tl.load(suppressed + index), -float("inf"), x)
    return x


@triton.jit(do_not_specialize=["per"])  # type: ignore[untyped-decorator]
def _group_maxima(  # type: ignore[no-untyped-def]
    logits,
    suppressed,
    maxima,
    overflow,
    per,
    columns,
    groups,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
    SUPPRESSED: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(1).to(tl.int64)
    group = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    x = tl.load(logits + row * columns + column, mask=column < columns, other=-float("inf"))
    x = _without(x, column, suppressed, SUPPRESSED)
    tl.store(maxima + row * groups + group, tl.max(x, 1), mask=group < groups)
    tl.store(overflow + row // per, False, mask=(tl.program_id(0) == 0) & (row % per == 0))


@triton.jit(do_not_specialize=["offset", "per"])  # type: ignore[untyped-decorator]
def _draw(  # type: ignore[no-untyped-def]
    logits,
    maxima,
    ids,
    temperature,
    top_k,
    top_p,
    min_p,
    key,
    position,
    offset,
    suppressed,
    groups,
    keys,
    tokens,
    overflow,
    per,
    columns,
    count,
    WIDTH: tl.constexpr,
    PILES: tl.constexpr,
    MOST: tl.constexpr,
    LIST: tl.constexpr,
    GROUPED: tl.constexpr,
    HAS_IDS: tl.constexpr,
    SUPPRESSED: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0)
    sequence = row // per
    heat = tl.load(temperature + sequence)
    best = tl.load(top_k + sequence)
    greedy = (heat <= 0) | (best == 1)
    heat = tl.where(greedy, 1.0, heat)
    best = tl.where(greedy, 1, tl.minimum(tl.minimum(best, MOST), columns))

    # 1. the bound, from the maxima of groups (or, of a short row, from its logits)
    at = tl.arange(0, WIDTH)
    x = tl.load(maxima + row.to(tl.int64) * count + at, mask=at < count, other=-float("inf"))
    if GROUPED == 0:
        x = _without(x, at, suppressed, SUPPRESSED)
    piles = tl.max(tl.reshape(x, [WIDTH // PILES, PILES]), 0)
    piles = tl.sort(piles, descending=True)
    bound = tl.max(tl.where(tl.arange(0, PILES) == best - 1, piles, -float("inf")), 0)
    bound = tl.div_rn(bound, heat)
    likeliest = tl.div_rn(tl.max(piles, 0), heat)
    bound = tl.maximum(bound, likeliest - 104)  # below it f32 knows no chance above 0

    # 2. the candidates: all logits that reach it, in the order of their columns
    x = tl.div_rn(x, heat)
    reach = (x >= bound) & (x > -float("inf"))
    slot = tl.cumsum(reach.to(tl.int32), 0) - 1
    found = tl.sum(reach.to(tl.int32), 0)
    keys += row * LIST
    if GROUPED == 0:
        tl.store(keys + slot, packed(x, at), mask=reach & (slot < LIST))
    else:
        groups += row * WIDTH
        tl.store(groups + slot, at, mask=reach)
        tl.debug_barrier()
        found = _gather(
            logits + row.to(tl.int64) * columns,
            *(groups, found, keys, heat, bound, columns, suppressed, SUPPRESSED, GROUPED, LIST),
        )
    tl.debug_barrier()

    # 3. the draw
    tl.store(overflow + sequence, True, mask=(found > LIST) & (greedy == 0))
    nucleus = tl.load(top_p + sequence)
    share = tl.load(min_p + sequence)
    stream = tl.load(key + sequence)
    place = tl.load(position + sequence) + row % per + offset
    ids += row.to(tl.int64) * columns
    if found <= 128:
        token = _drawn(
            *(keys, found, best, greedy, nucleus, share, stream, place, ids, columns, 128, HAS_IDS)
        )
    else:
        token = _drawn(
            *(keys, found, best, greedy, nucleus, share, stream, place, ids, columns, LIST, HAS_IDS)
        )
    tl.store(tokens + row, token)


@triton.jit  # type: ignore[untyped-decorator]
def _gather(  # type: ignore[no-untyped-def]
    logits,
    groups,
    found,
    keys,
    heat,
    bound,
    columns,
    suppressed,
    SUPPRESSED: tl.constexpr,
    GROUP: tl.constexpr,
    LIST: tl.constexpr,
):
    """Writes the candidates among the `found` groups' logits to `keys`; how many there were."""
    BATCH: tl.constexpr = 128
    count = 0
    start = 0
    while (start < found) & (count <= LIST):
        which = start + tl.arange(0, BATCH)
        group = tl.load(groups + which, mask=which < found, other=0)
        column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
        inside = (which < found)[:, None] & (column < columns)
        x = tl.load(logits + column, mask=inside, other=-float("inf"))
        x = tl.div_rn(_without(x, column, suppressed, SUPPRESSED), heat)
        x = tl.reshape(x, [BATCH * GROUP])
        reach = (x >= bound) & (x > -float("inf"))
        slot = count + tl.cumsum(reach.to(tl.int32), 0) - 1
        key = packed(x, tl.reshape(column, [BATCH * GROUP]))
        tl.store(keys + slot, key, mask=reach & (slot < LIST))
        count += tl.sum(reach.to(tl.int32), 0)
        start += BATCH
    return count


@triton.jit  # type: ignore[untyped-decorator]
def _drawn(  # type: ignore[no-untyped-def]
    keys,
    found,
    best,
    greedy,
    top_p,
    min_p,
    stream,
    place,
    ids,
    columns,
    SIZE: tl.constexpr,
    HAS_IDS: tl.constexpr,
):
    """The token drawn among the `found` candidates `keys`, of which `best` and ties count."""
    at = tl.arange(0, SIZE)
    key = tl.sort(tl.load(keys + at, mask=at < found, other=_NONE), descending=True)
    value = tl.where(at < found, unpacked_value(key), -float("inf"))
    token = tl.minimum(unpacked_index(key), columns - 1).to(tl.int64)
    if HAS_IDS:
        token = tl.load(ids + token)
    last = tl.max(tl.where(at == best - 1, value, -float("inf")), 0)
    kept = (at < found) & (value >= last)
    share = tl.where(kept, tl.exp((value - tl.max(value, 0)).to(tl.float64)), 0.0)
    weight = (share / tl.sum(share, 0)).to(tl.float32)
    before = tl.cumsum(weight.to(tl.float64), 0).to(tl.float32) - weight
    limit = tl.where(top_p < 1, tl.maximum(top_p, 1e-9), 2.0)  # no mass comes before the likeliest
    least = tl.min(tl.where(before >= limit, float("inf"), weight), 0)
    least = tl.maximum(least, min_p * tl.max(weight, 0))
    weight = tl.where(weight < least, 0.0, weight)
    noise = tl.log(uniform(stream, place, token)).to(tl.float32)
    race = tl.where(kept, tl.div_rn(weight, noise), float("inf"))
    winner = tl.where(greedy, 0, tl.argmin(race, 0))
    return tl.max(tl.where(at == winner, token, 0), 0)
