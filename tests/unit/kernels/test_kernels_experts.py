"""The routed experts, kernel against twin and twin against the model."""

import pytest
import torch

from gemmarunner.kernels.experts import experts_grouped, experts_slow, route_slow
from gemmarunner.models.config import MoEConfig
from gemmarunner.models.linear import make_linear
from gemmarunner.models.mlp import Experts

HIDDEN, UNITS, COUNT, TOP_K = 48, 40, 12, 3


def layer(rows: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Inputs and weights of one small layer."""
    generator = torch.Generator().manual_seed(2)

    def randn(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.3).to(dtype)

    return {
        "x": randn(rows, HIDDEN),
        "router": randn(COUNT, HIDDEN),
        "scale": randn(COUNT).float(),
        "gate_up": randn(COUNT, 2 * UNITS, HIDDEN),
        "down": randn(COUNT, HIDDEN, UNITS),
    }


def test_twins_sum_what_the_model_sums() -> None:
    """Routing and experts together give the model's rows, and grouping changes nothing."""
    w = layer(5)
    tensors = {
        "router.scale": torch.ones(HIDDEN) * HIDDEN**0.5,
        "router.proj.weight": w["router"],
        "router.per_expert_scale": w["scale"],
        "experts.gate_up_proj": w["gate_up"],
        "experts.down_proj": w["down"],
    }
    moe = MoEConfig(COUNT, TOP_K, UNITS)
    model = Experts(moe, HIDDEN, 1e-6, lambda name, *_: tensors[name], make_linear)
    normed = model.router_norm(w["x"])

    shares, chosen = route_slow(normed, w["router"], w["scale"], TOP_K)
    out = experts_slow(w["x"], w["gate_up"], w["down"], shares, chosen).sum(0)

    torch.testing.assert_close(model(w["x"], w["x"]), out)
    grouped = experts_grouped(w["x"], w["gate_up"], w["down"], shares, chosen).sum(0)
    torch.testing.assert_close(out, grouped)


@pytest.fixture
def interpreter() -> None:
    pytest.importorskip("triton")
    import tests.fakes.triton_sort_on_cpu  # noqa: F401


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(
    "rows", [1, pytest.param(4, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow)]
)
def test_kernels_give_the_twins_rows(rows: int) -> None:
    """Routing and experts agree with their twins, for a tile named by a pair or by an expert."""
    from gemmarunner.kernels.experts_triton import launch_experts, launch_route

    w = layer(rows)
    shares, chosen = launch_route(w["x"], w["router"], w["scale"], TOP_K)
    expected_shares, expected = route_slow(w["x"], w["router"], w["scale"], TOP_K)
    assert torch.equal(expected, chosen)
    torch.testing.assert_close(expected_shares, shares)

    out = launch_experts(w["x"], w["gate_up"], w["down"], shares, chosen)

    expected_out = experts_slow(w["x"], w["gate_up"], w["down"], shares, chosen)
    torch.testing.assert_close(expected_out, out, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("interpreter")
def test_more_rows_of_one_expert_than_a_tile_holds_are_all_served() -> None:
    """When every row picks the same experts, none is left out."""
    from gemmarunner.kernels.experts_triton import launch_experts

    w = layer(20)
    chosen = torch.tensor([[7, 2, 5]], dtype=torch.int32).repeat(20, 1)
    shares = torch.rand(20, TOP_K)

    out = launch_experts(w["x"], w["gate_up"], w["down"], shares, chosen)

    expected = experts_slow(w["x"], w["gate_up"], w["down"], shares, chosen)
    torch.testing.assert_close(expected, out, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("interpreter")
def test_row_is_the_same_bits_beside_others() -> None:
    """A row alone and the same row among twenty give the same numbers."""
    from gemmarunner.kernels.experts_triton import launch_experts

    w = layer(20)
    shares, chosen = route_slow(w["x"], w["router"], w["scale"], TOP_K)
    every = launch_experts(w["x"], w["gate_up"], w["down"], shares, chosen)

    alone = launch_experts(w["x"][3:4], w["gate_up"], w["down"], shares[3:4], chosen[3:4])

    assert torch.equal(every[:, 3:4], alone)
