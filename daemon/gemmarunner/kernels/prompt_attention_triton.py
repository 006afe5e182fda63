"""The Triton kernel of prompt attention: flash attention over a cache ring, then the new keys."""

# Triton reads the arguments by its own rules; capitals are its custom for constants.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LOG2_E = tl.constexpr(1.4426950408889634)
# The highest score of a row that has seen no key yet; finite, as infinities would subtract to NaN.
FLOOR = tl.constexpr(-1e30)


@triton.jit
def _over_keys(
    peak,
    total,
    out,
    queries,
    past,
    own,
    begin,
    end,
    positions,
    start,
    ring,
    own_side,
    past_side,
    column,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    EDGE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_O: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One step of online softmax for each block of keys from `begin` to `end`.

    EDGE: rows may not see all of the keys, or the last block may be short.
    """
    d = tl.arange(0, D)
    o = column + tl.arange(0, BLOCK_O)
    for block in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        j = block + tl.arange(0, BLOCK_N)
        index = j % ring if WINDOW > 0 else j
        is_past = j < start
        k_rows = tl.where(is_past, past + index.to(tl.int64) * D, own + (j - start) * D)
        v_rows = k_rows + tl.where(is_past, past_side, own_side)
        if EDGE:
            k = tl.load(k_rows[:, None] + d[None, :], mask=(j < end)[:, None], other=0.0)
            v = tl.load(v_rows[:, None] + o[None, :], mask=(j < end)[:, None], other=0.0)
        else:
            k = tl.load(k_rows[:, None] + d[None, :])
            v = tl.load(v_rows[:, None] + o[None, :])
        scores = tl.dot(queries, k.T, input_precision="ieee") * LOG2_E
        if EDGE:
            seen = (j[None, :] <= positions[:, None]) & (j < end)[None, :]
            if WINDOW > 0:
                seen = seen & (j[None, :] > positions[:, None] - WINDOW)
            scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weights, 1)
        out = tl.dot(weights.to(v.dtype), v, out * shrink[:, None], input_precision="ieee")
        peak = higher
    return peak, total, out


@triton.jit(do_not_specialize=["per"])
def prompt_kernel(
    q,
    new,
    cache,
    out,
    slots,
    starts,
    counts,
    per,
    ring,
    new_side,
    new_head,
    past_slot,
    past_side,
    past_head,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_O: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """BLOCK_O outputs of BLOCK_M successive rows of one head."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    start, count = tl.load(starts), tl.load(counts)
    past = cache + tl.load(slots).to(tl.int64) * past_slot
    # The last rows see the most keys: they come first.
    top = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    head = tl.program_id(1)
    heads = tl.num_programs(1)
    column = tl.program_id(2) * BLOCK_O
    kv_head = (head // GROUP).to(tl.int64)
    m = top + tl.arange(0, BLOCK_M)
    real = m < count
    row = (m * heads + head).to(tl.int64) * D
    d = tl.arange(0, D)
    queries = tl.load(q + row[:, None] + d[None, :], mask=real[:, None], other=0.0)

    peak = tl.full((BLOCK_M,), FLOOR, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    result = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    old = past + kv_head * past_head
    own = new + kv_head * new_head
    positions = start + m
    end = start + tl.minimum(top + BLOCK_M, count)
    edge = 0  # where the keys begin that not every row sees
    if WINDOW > 0:
        edge = tl.maximum(start + top - WINDOW + 1, 0)
    else:
        edge = (start + top) // BLOCK_N * BLOCK_N
    if top >= count:  # nothing but padding, which sees nothing
        edge = 0
        end = 0
    if WINDOW == 0:
        peak, total, result = _over_keys(
            peak, total, result, queries, old, own, 0, edge, positions, start, ring,
            new_side, past_side, column, D, WINDOW, False, BLOCK_N, BLOCK_O, STAGES,
        )  # fmt: skip
    peak, total, result = _over_keys(
        peak, total, result, queries, old, own, edge, end, positions, start, ring,
        new_side, past_side, column, D, WINDOW, True, BLOCK_N, BLOCK_O, STAGES,
    )  # fmt: skip

    result = tl.where(real[:, None], result / tl.where(real, total, 1.0)[:, None], 0.0)
    to = row[:, None] + column + tl.arange(0, BLOCK_O)[None, :]
    tl.store(out + to, result.to(out.dtype.element_ty), mask=(m < per)[:, None])


@triton.jit(do_not_specialize=["per"])
def store_kernel(
    new,
    cache,
    slots,
    starts,
    counts,
    per,
    ring,
    past_slot,
    past_side,
    past_head,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    PDL: tl.constexpr,
):
    """ROWS successive rows of the keys or values of one head."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    start, count = tl.load(starts), tl.load(counts)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    side, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    kept = (row < count) & (row >= count - ring)
    d = tl.arange(0, D)
    own = new + ((side * HEADS + head) * per + row).to(tl.int64)[:, None] * D + d[None, :]
    past = cache + tl.load(slots).to(tl.int64) * past_slot
    past += side.to(tl.int64) * past_side + head.to(tl.int64) * past_head
    to = past + ((start + row) % ring).to(tl.int64)[:, None] * D + d[None, :]
    tl.store(to, tl.load(own, mask=kept[:, None]), mask=kept[:, None])
