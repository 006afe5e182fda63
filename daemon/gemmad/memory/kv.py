"""Bytes of keys and values, exactly as a runner allocates them; arithmetic.

                 full layers                 sliding layers
    rounds as    ring of num_ctx + depth     ring of window + 64, no longer than full ones
    graphs                                   (K and V, all slots in one tensor)
    plain calls  num_ctx (+ the width of     window + rows of a chunk + 64 + half a window,
                 deterministic rounds)       no longer than full ones
All are whole multiples of 64 positions. Layers that share another's keys take nothing.
"""

from gemmad.memory.shapes import HalfShape, LayerShape

ALIGNED = 64
SPARE = 64  # positions that the fused runner's rings have beyond the window
CHUNK_FUSED = 2048  # rows of a prompt's chunk, at most
CHUNKS_CAPTURED = (32, 64, 128, 256, 512)  # rows of those that are graphs
CHUNK_PLAIN = 256


def fused_rings(target: HalfShape, num_ctx: int, depth: int) -> tuple[int, int]:
    """Positions of a full and of a sliding layer, for rounds captured as graphs."""
    full = aligned(num_ctx + depth)
    return full, min(full, aligned(target.window + SPARE))


def plain_rings(target: HalfShape, num_ctx: int, depth: int, width: int) -> tuple[int, int]:
    """The same for plain calls; `width`: rows that every deterministic round has, else 0."""
    full = aligned(num_ctx + width)
    rows = max(CHUNK_PLAIN, depth + 1)
    return full, min(full, aligned(target.window + rows + ALIGNED + target.window // 2))


def kv_bytes(target: HalfShape, rings: tuple[int, int], slots: int, item_bytes: int) -> int:
    """Of all slots."""
    return sum(layer_kv_bytes(layer, rings, slots, item_bytes) for layer in target.layers)


def layer_kv_bytes(layer: LayerShape, rings: tuple[int, int], slots: int, item_bytes: int) -> int:
    """Of one layer."""
    if not layer.owns_kv:
        return 0
    return slots * 2 * layer.kv_width * rings[layer.kind == "sliding"] * item_bytes


def aligned(positions: int) -> int:
    """Rounded up to whole multiples."""
    return -(-positions // ALIGNED) * ALIGNED
