"""What layers take by themselves, against the decoders' own classes, and what a deal comes to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.api.errors import LoadFailed
from gemmad.memory import fused, kv
from gemmad.memory.estimate import Setting, estimate
from gemmad.memory.shapes import PairShape
from gemmad.memory.split import Deal, shares, split_bytes
from gemmarunner.cuda import slots as cuda_slots
from gemmarunner.cuda.layer import Layer, LayerPlan, as_it_is
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.split import layer_devices
from tests.bench import shapes
from tests.unit.memory.test_memory_estimate import META, each_shape, held, pairs, taken

SETTINGS = st.builds(
    Setting, num_ctx=st.integers(1, 1 << 17), slots=st.integers(1, 4), max_depth=st.integers(0, 8),
    drafter=st.booleans(), quantize=st.sampled_from([None, "int8", "int4"]), fused=st.booleans(),
)  # fmt: skip


@each_shape
@given(how=SETTINGS)
@settings(max_examples=20, deadline=None)  # the first one builds the shape
def test_all_devices_together_take_what_one_does(name, how):
    """Weights, keys and values are only elsewhere; every device has a runtime of its own."""
    pair = pairs(name)
    found = split_bytes(pair, how, ("cuda:0", "cuda:1"))
    before = min(3, found.movable)
    told = shares(found, Deal(("cuda:1", "cuda:0"), (before, len(found.layers) - before)))
    whole = estimate(pair, how)

    assert list(told) == ["cuda:0", "cuda:1"]
    assert sum(share.target for share in told.values()) == whole.target_weights
    assert sum(share.kv for share in told.values()) == whole.kv
    assert sum(share.drafter for share in told.values()) == whole.drafter == told["cuda:0"].drafter
    assert all(share.beside >= 800 << 20 for share in told.values())


@each_shape
def test_layers_may_be_moved_as_far_as_the_runner_lets_them(name):
    """One more is refused there."""
    pair, config = pairs(name), shapes.target_config(name)
    movable, count = pair.target.first_read_elsewhere, len(config.layers)

    layer_devices(
        (("cuda:0", movable), ("cuda:1", count - movable)), config, torch.device("cuda:1")
    )
    beyond = (("cuda:0", movable + 1), ("cuda:1", count - movable - 1))
    with pytest.raises(LoadFailed, match="are read on"):
        layer_devices(beyond, config, torch.device("cuda:1"))


@each_shape
def test_weights_of_a_layer_are_those_of_the_decoder(name):
    """Each of a sliding and a full layer, to a thousandth."""
    pair, config = pairs(name), shapes.target_config(name)
    found = fused.layers_bytes(pair, Setting(4096))
    for kind in ("sliding", "full"):
        index = [layer.kind for layer in config.layers].index(kind)
        plan = LayerPlan(
            config.layers[index], config.hidden, config.heads, config.eps, torch.bfloat16,
            owns_kv=True, ple_dim=config.ple_dim, moe=config.moe,
        )  # fmt: skip
        layer = Layer(plan, lambda name, shape, **_: taken(name, shape), as_it_is)

        assert found[index].weights == pytest.approx(held(layer), rel=1e-3)


@each_shape
def test_keys_and_values_of_layers_are_those_of_the_caches(name):
    """Of the first four, to the byte, in both ways of running."""
    pair, config = pairs(name), shapes.target_config(name)
    dtype = torch.float32 if name == "nano" else torch.bfloat16  # small pairs run in more
    cache = KVCache(config, 3000, kv.CHUNK_PLAIN, META, dtype)
    slots = cuda_slots.Slots(config, 2, 3000 + 8, META, torch.bfloat16)
    for how, there in (
        (Setting(3000, fused=False), cache.nbytes_of(0, 4)),
        (Setting(3000, 2), slots.nbytes_of(0, 4)),
    ):
        found = split_bytes(pair, how, ("cuda:0",)).layers[:4]

        assert sum(layer.kv for layer in found) == there


def test_a_pair_without_a_drafter_is_split_as_well():
    """Nothing of a drafter is counted."""
    found = split_bytes(PairShape(pairs("12b").target), Setting(4096), ("cuda:0", "cuda:1"))

    assert found.drafter < 1 << 20
