"""Estimates against the runner's own classes, which say what they allocate."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gemmad.memory import fused, kv
from gemmad.memory.estimate import Setting, estimate, largest_context
from gemmad.memory.parts import kept_as
from gemmad.memory.shapes import Matrix, PairShape
from gemmarunner.cuda import backend as cuda_backend
from gemmarunner.cuda import prompts
from gemmarunner.cuda import slots as cuda_slots
from gemmarunner.cuda.drafter import CudaDrafter
from gemmarunner.cuda.graphs import RoundGraphs
from gemmarunner.cuda.target import CudaTarget
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.kernels.attention import piece_count
from gemmarunner.kernels.linear import MAX_TILE
from gemmarunner.models import readahead
from gemmarunner.models.packing import packer
from tests.bench import shapes
from tests.bench.estimate import pair_shape

META = torch.device("meta")
GIB = 1 << 30
each_shape = pytest.mark.parametrize("name", shapes.SHAPES)
pairs = cache(pair_shape)
settings_of = st.builds(
    Setting, num_ctx=st.integers(1, 1 << 18), slots=st.integers(1, 16),
    max_depth=st.integers(0, 8), kind=st.sampled_from(["cuda", "rocm", "mps", "cpu"]),
    drafter=st.booleans(), quantize=st.sampled_from([None, "int8", "int4"]),
    draft_quantize=st.sampled_from([None, "int8", "int4"]), ple_on_host=st.booleans(),
    deterministic=st.booleans(), cpu=st.sampled_from(["half", "bf16", "float32"]),
    fused=st.booleans(), unified=st.booleans(), free=st.sampled_from([None, GIB, 99 * GIB]),
)  # fmt: skip


def taken(name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
    """Tensors without memory, but for the numbers that are read while a model is built."""
    kind = torch.int64 if name.endswith("ordering") else torch.bfloat16
    return torch.ones(shape, device="cpu" if shape == (1,) else META, dtype=kind)


def held(root: object) -> int:
    """Bytes of all storages that hang on an object, each once."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            storage = one.untyped_storage()
            found[storage._cdata] = storage.nbytes()
        waiting += _parts_of(one)
    return sum(found.values())


def _parts_of(one: Any) -> Iterator[Any]:
    if isinstance(one, list | tuple):
        yield from one
    elif isinstance(one, dict):
        yield from one.values()
    elif type(one).__module__.startswith("gemmarunner"):
        yield from vars(one).values() if hasattr(one, "__dict__") else ()


@each_shape
def test_weights_on_a_gpu_are_those_of_the_decoders(name):
    """Target and drafter, to a thousandth: rotations' frequencies are not counted."""
    pair = pairs(name)
    target = CudaTarget(shapes.target_config(name), taken, META, torch.bfloat16)
    drafter = CudaDrafter(shapes.drafter_config(name), taken, target)

    assert fused.target_bytes(pair.target, None) == pytest.approx(held(target), rel=1e-3)
    own = held(drafter) - held(target)
    assert fused.drafter_bytes(pair.drafter, None) == pytest.approx(own, rel=4e-3)


@each_shape
@pytest.mark.parametrize(("num_ctx", "slots", "depth"), [(1, 1, 0), (513, 4, 8), (131_072, 2, 3)])
def test_keys_and_values_are_those_of_the_caches(name, num_ctx, slots, depth):
    """To the byte, in both ways of running."""
    target, config = pairs(name).target, shapes.target_config(name)
    ours = cuda_slots.Slots(config, slots, num_ctx + depth, META, torch.bfloat16)
    rings = kv.fused_rings(target, num_ctx, depth)
    assert kv.kv_bytes(target, rings, slots, 2) == ours.nbytes

    cache = KVCache(config, num_ctx, max(kv.CHUNK_PLAIN, depth + 1), META, torch.float32)
    rings = kv.plain_rings(target, num_ctx, depth, 0)
    assert kv.kv_bytes(target, rings, 1, 4) == cache.nbytes


@each_shape
def test_layers_are_those_of_the_config(name):
    """Kinds, owners and widths, although only tensors were asked."""
    target, config = pairs(name).target, shapes.target_config(name)
    assert (target.hidden, target.vocab) == (config.hidden, config.vocab_size)
    assert (target.window, target.ple_dim) == (config.window, config.ple_dim)
    assert target.first_shared == config.first_shared
    for ours, layer in zip(target.layers, config.layers, strict=True):
        assert (ours.kind, ours.owns_kv) == (layer.kind, layer.donor is None)
        assert (ours.head_dim, ours.inner) == (layer.head_dim, layer.intermediate)
        assert ours.q_width == config.heads * layer.head_dim
        assert ours.kv_width == (layer.kv_heads * layer.head_dim if ours.owns_kv else 0)


@given(st.integers(1, 20), st.integers(0, 8))
@settings(deadline=None, max_examples=50)
def test_captured_rounds_are_those_of_the_runner(slots, depth):
    """How many there are, and how wide the widest."""
    batches = cuda_slots.buckets(slots)
    graphs = object.__new__(RoundGraphs)  # all that it says of shapes hangs on these two
    graphs._batches, graphs._max_depth, graphs.drafts = batches, depth, True
    assert fused.batches(slots) == list(batches)
    assert fused.round_rows(slots, depth) == max(s.batch * (s.depth + 1) for s in graphs.shapes)
    assert all(fused.deepest(b, depth) == graphs.deepest(b) for b in batches)


@given(st.integers(1, 1 << 18))
def test_pieces_of_keys_are_those_of_the_kernel(positions):
    """Their partial results are the largest thing in a round of a long text."""
    ring = kv.aligned(positions)
    assert fused.piece_count(ring) == piece_count(ring, None, 9, 64)


def test_constants_are_the_runners():
    """The daemon cannot import them."""
    assert kv.CHUNK_FUSED == cuda_backend.MAX_ROWS
    assert kv.CHUNKS_CAPTURED == prompts.SIZES
    assert (kv.SPARE, kv.ALIGNED) == (cuda_slots.SPARE, cuda_slots.ALIGNED)
    assert EagerBackend.__init__.__kwdefaults__["max_rows"] == kv.CHUNK_PLAIN
    assert fused.MAX_TILE == MAX_TILE
    assert fused.AHEAD_BYTES == readahead.AHEAD_BYTES
    assert fused.STAGING_BYTES == (readahead.THREADS + 1) * readahead.PIECE_BYTES


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize(("role", "rows", "columns"), [
    ("qkv", 512, 256), ("gate_up", 64, 96), ("head", 512, 256), ("ple_gate", 512, 512),
    ("down", 512, 264), ("ple_context", 512, 256), ("ple_widen", 512, 256),
])  # fmt: skip
def test_what_is_packed_is_what_the_runner_packs(quantize, role, rows, columns):
    """By role and size."""
    made = packer(quantize)(role, torch.zeros(rows, columns))
    kind = kept_as(Matrix(role, "BF16", rows, columns), quantize)
    assert kind == ("BF16" if isinstance(made, Tensor) else made.format.upper())


@given(settings_of, st.sampled_from(shapes.SHAPES))
@settings(deadline=None, max_examples=50)
def test_more_takes_more_and_nothing_is_negative(setting, name):
    """Context, sequences, a drafter; of what weights are, nothing changes."""
    pair = pairs(name)
    found = estimate(pair, setting)
    assert all(value >= 0 for value in (found.target_weights, found.kv, found.workspace))
    assert found.device > found.target_weights
    for more in (
        replace(setting, num_ctx=2 * setting.num_ctx), replace(setting, slots=setting.slots + 1),
    ):  # fmt: skip
        other = estimate(pair, more)
        assert other.device >= found.device
        assert other.target_weights == found.target_weights
    if setting.drafter:
        assert estimate(pair, replace(setting, drafter=False)).device <= found.device


@given(settings_of)
@settings(deadline=None, max_examples=50)
def test_unified_memory_counts_the_process_once(setting):
    """On its own device the host's part is apart."""
    found = estimate(pairs("e2b"), setting)
    whole = found.device + found.host_only
    parts = (
        found.target_weights + found.drafter_weights + found.kv + found.drafter_state
        + found.workspace + found.graphs + found.media + found.host
    )  # fmt: skip
    assert whole == parts
    assert found.unified == (setting.unified or setting.kind in ("cpu", "mps"))


def test_a_pair_without_a_drafter_is_estimated():
    """And towers only where they are loaded."""
    pair = replace(pairs("e2b"), drafter=None, projector_bytes=GIB)
    found = estimate(pair, Setting(8192))
    assert (found.drafter_weights, found.media) == (0, 0)
    assert estimate(pair, Setting(8192, media=True)).media == GIB


def test_quantized_weights_take_less():
    """Of every size; what a file has packed already does not change."""
    for name in ("e4b", "12b", "26b", "31b"):
        sizes = [
            estimate(pairs(name), Setting(8192, quantize=wanted)).target_weights
            for wanted in (None, "int8", "int4")
        ]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[2] < 0.7 * sizes[0]


@pytest.mark.parametrize(("quantize", "share"), [(None, 1.0), ("int8", 0.532), ("int4", 0.29)])
def test_native_experts_take_what_they_are_kept_in(quantize, share):
    """However little is free: no format is widened."""
    pair = pairs("26b")
    setting = Setting(2048, kind="cpu", cpu="native", drafter=False, free=GIB, quantize=quantize)

    found = estimate(pair, setting).target_weights

    assert found / (2 * pair.target.elements) == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("room", [0, 16 * GIB, 17 * GIB, 99 * GIB])
def test_the_largest_context_fits(room):
    """And twice as much would not, or was not asked for."""
    setting = Setting(131_072, 4)
    found = largest_context(pairs("e4b"), setting, room)
    if found is None:
        assert estimate(pairs("e4b"), replace(setting, num_ctx=2048)).device > room
        return
    assert estimate(pairs("e4b"), replace(setting, num_ctx=found)).device <= room
    assert found == 131_072 or (
        estimate(pairs("e4b"), replace(setting, num_ctx=2 * found)).device > room
    )


def test_an_estimate_is_quick():
    """A planner asks for many."""
    pair, setting = pairs("31b"), Setting(131_072, 4)
    assert isinstance(pair, PairShape)
    begun = time.process_time()
    for _ in range(20):
        estimate(pair, setting)
    assert (time.process_time() - begun) / 20 < 0.005
