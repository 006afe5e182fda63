"""The cache behaves as a list of positions that can be cut, however its slots move."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.engine.kvcache import ALIGNED, KVCache

WINDOW, MAX_ROWS, CAPACITY = 24, 16, 600


@dataclass(frozen=True)
class Layer:
    kind: str
    head_dim: int
    kv_heads: int
    donor: int | None = None


@dataclass(frozen=True)
class Shape:
    layers: tuple[Layer, ...]
    window: int


SHAPE = Shape(
    (Layer("sliding", 4, 2), Layer("full", 8, 1), Layer("sliding", 4, 2, donor=0)), WINDOW
)


def new_cache() -> KVCache:
    return KVCache(SHAPE, CAPACITY, MAX_ROWS, "cpu", torch.float32)


def append(cache: KVCache, values: list[float]) -> None:
    """One forward: every layer writes each row's value into all of its heads."""
    cache.make_room(len(values))
    rows = torch.tensor(values)[:, None, None]
    cache.write(0, cache.length - cache.sliding_base, rows.expand(-1, 4, 4))
    cache.write(1, cache.length, rows.expand(-1, 2, 8))
    cache.length += len(values)


def held(cache: KVCache, layer: int) -> list[float]:
    keys, values = cache.committed(layer)
    assert torch.equal(keys[..., 0], values[..., 0])
    return keys[0, 0, :, 0].tolist()


STEPS = st.lists(st.tuples(st.integers(1, MAX_ROWS), st.floats(0, 1)), max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STEPS)
def test_any_appends_and_truncations_equal_a_list(steps) -> None:
    """After each forward some of its rows are rejected; the rest is exactly what was written."""
    cache, model, value = new_cache(), [], 0.0
    for rows, kept in steps:
        if len(model) + rows > CAPACITY:
            break
        values = [value := value + 1 for _ in range(rows)]
        append(cache, values)
        model += values[: round(kept * rows)]
        cache.truncate(len(model))

        assert cache.length == len(model)
        assert held(cache, 1) == model
        assert held(cache, 0) == model[-WINDOW:]
        assert cache.sliding_base % ALIGNED == 0


def test_truncation_beyond_the_window_is_refused_once_slots_moved() -> None:
    """What the sliding layers no longer hold can't be promised; nothing is always possible."""
    cache = new_cache()
    for _ in range(20):
        append(cache, [1.0] * MAX_ROWS)

    assert cache.sliding_base > 0
    assert not cache.can_truncate(cache.sliding_base)
    assert cache.can_truncate(cache.length - MAX_ROWS)
    with pytest.raises(AssertionError):
        cache.truncate(cache.sliding_base)
    cache.truncate(0)
    append(cache, [7.0])
    assert held(cache, 0) == held(cache, 1) == [7.0]


def test_everything_can_be_truncated_to_before_slots_moved() -> None:
    """A short conversation may go back to any point."""
    cache = new_cache()
    append(cache, [1.0, 2.0, 3.0])

    assert all(cache.can_truncate(length) for length in range(4))
    assert not cache.can_truncate(4)


def test_nbytes_counts_owned_layers_and_caps_sliding_ones() -> None:
    """A sliding layer costs its slots, whatever the capacity; a layer with a donor nothing."""
    cache = new_cache()
    slots = cache.sliding_slots
    full = -(-CAPACITY // ALIGNED) * ALIGNED

    assert slots < CAPACITY
    assert cache.nbytes == 4 * (slots * 4 * 4 + full * 2 * 8)


def test_forward_beyond_the_capacity_is_refused() -> None:
    """The engine must stop before; a silent wrap would corrupt the text."""
    cache = KVCache(SHAPE, 20, MAX_ROWS, "cpu", torch.float32)
    append(cache, [1.0] * 16)

    with pytest.raises(AssertionError):
        cache.make_room(5)
