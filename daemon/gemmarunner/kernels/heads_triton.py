"""The Triton kernel that turns a projection's partial sums into normalised, rotated heads."""

# Triton reads the arguments by its own rules; capitals are its custom for constants.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit(do_not_specialize=["per", "ring"])
def heads_kernel(
    parts,
    q_weight,
    k_weight,
    frequencies,
    q,
    cache,
    slots,
    starts,
    per,
    ring,
    eps,
    parts_split,
    parts_row,
    cache_slot,
    cache_side,
    cache_head,
    cache_index,
    SPLITS: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    K_EQ_V: tl.constexpr,
    IN_RING: tl.constexpr,
    PDL: tl.constexpr,
):
    """One head of one row: queries to `q`, keys and values to `cache`, halves side by side."""
    if PDL:
        gdc_launch_dependents()
    head = tl.program_id(0)
    row = tl.program_id(1)
    HALF: tl.constexpr = D // 2
    pair = tl.arange(0, HALF)
    is_query = head < HEADS
    weights = q_weight if is_query else k_weight
    left_weight = tl.load(weights + pair)
    right_weight = tl.load(weights + HALF + pair)
    frequency = tl.load(frequencies + pair)
    if PDL:
        gdc_wait()

    position = tl.load(starts + row // per) + row % per
    at = parts + row.to(tl.int64) * parts_row + head * D + pair
    left = tl.zeros((HALF,), tl.float32)
    right = tl.zeros((HALF,), tl.float32)
    for split in tl.static_range(SPLITS):
        left += tl.load(at + split * parts_split).to(tl.float32)
        right += tl.load(at + split * parts_split + HALF).to(tl.float32)
    scale = tl.rsqrt((tl.sum(left * left) + tl.sum(right * right)) / D + eps)
    left *= scale
    right *= scale
    angle = position.to(tl.float32) * frequency
    cos = tl.cos(angle)  # the C library's, good at any angle, not the instruction cos.approx
    sin = tl.sin(angle)
    turned_left = left * left_weight * cos - right * right_weight * sin
    turned_right = right * right_weight * cos + left * left_weight * sin

    if is_query:
        to = q + (row.to(tl.int64) * HEADS + head) * D + pair
        tl.store(to, turned_left.to(q.dtype.element_ty))
        tl.store(to + HALF, turned_right.to(q.dtype.element_ty))
    else:
        slot = tl.load(slots + row // per).to(tl.int64)
        if IN_RING:
            index = position % ring
        else:
            slot = slot * 0
            index = row
        kv_head = (head - HEADS) % (KV_HEADS if KV_HEADS > 0 else 1)
        to = cache + slot * cache_slot + kv_head.to(tl.int64) * cache_head
        to += index.to(tl.int64) * cache_index + pair
        if head < HEADS + KV_HEADS:
            tl.store(to, turned_left.to(cache.dtype.element_ty))
            tl.store(to + HALF, turned_right.to(cache.dtype.element_ty))
        if K_EQ_V or head >= HEADS + KV_HEADS:
            tl.store(to + cache_side, left.to(cache.dtype.element_ty))
            tl.store(to + cache_side + HALF, right.to(cache.dtype.element_ty))
