"""Weights lie in memory of their own, which is counted and given back."""

import gc
import itertools

import pytest
import torch

from gemmarunner.footprint import allocated_host_bytes, own_host_bytes
from gemmarunner.native.library import library, status
from gemmarunner.native.linear import Native, own_memory
from gemmarunner.native.memory import Arena

MIB = 1 << 20


def test_parts_of_an_arena_are_apart_and_aligned() -> None:
    """Also the first part of the next mapping, and one larger than a mapping usually is."""
    arena = Arena()
    sizes = (1, 63, 200 * MIB, 100 * MIB, 300 * MIB, 5)
    regions = [arena.take(nbytes) for nbytes in sizes]  # held: what is free may be had again
    ends = sorted((r.address, r.address + n) for r, n in zip(regions, sizes, strict=True))

    assert all(region.address % 64 == 0 for region in regions)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ends))


@pytest.mark.skipif(library() is None, reason=status())
@pytest.mark.skipif(own_host_bytes() is None, reason="this system does not say")
def test_a_model_that_goes_gives_its_memory_back() -> None:
    """And only its own, though another was packed before it; what is counted is what is held."""
    weight = torch.randn(4096, 4096)
    with own_memory():
        stays = Native(weight)
    before, counted = own_host_bytes() or 0, allocated_host_bytes() or 0
    with own_memory():
        goes = Native(weight)
    held = (own_host_bytes() or 0) - before
    assert (allocated_host_bytes() or 0) - counted == pytest.approx(goes.nbytes, abs=MIB)
    assert held == pytest.approx(goes.nbytes, abs=8 * MIB)

    del goes
    gc.collect()

    assert (own_host_bytes() or 0) - before == pytest.approx(0, abs=8 * MIB)
    assert stays(torch.ones(1, 4096)).shape == (1, 4096)
