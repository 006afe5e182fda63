"""The controller finds the depth that pays, parks a useless drafter, and comes back."""

import random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.engine.controller import DepthController, Regime
from gemmarunner.engine.estimates import AcceptanceTable, CostTable
from tests.bench.controller import DEVICES, TEXTS, Device, Text, share

GREEDY = Regime.GREEDY


def chosen(controller: DepthController, limit: int, regime: Regime = GREEDY, width: int = 1) -> int:
    """The depth of the next round."""
    return controller.choose(width, {regime: limit})[regime]


class World:
    """A pair whose rounds take `base + depth * step` seconds and accept with chance `rate`."""

    def __init__(self, rate: float, base: float = 2.5e-3, step: float = 0.5e-3, seed: int = 0):
        self.rate, self.base, self.step = rate, base, step
        self.chance = random.Random(seed)
        self.tokens, self.seconds = 0, 0.0

    def run(self, controller: DepthController, rounds: int, limit: int = 99) -> list[int]:
        """The depths of `rounds` rounds."""
        return [self.round(controller, limit) for _ in range(rounds)]

    def round(self, controller: DepthController, limit: int) -> int:
        depth = chosen(controller, limit)
        outcomes: list[bool] = []
        while len(outcomes) < depth and all(outcomes):
            outcomes.append(self.chance.random() < self.rate)
        seconds = (self.base + depth * self.step) * self.chance.uniform(0.95, 1.05)
        controller.record(1, depth, [(GREEDY, outcomes)], seconds)
        self.tokens += 1 + sum(outcomes)
        self.seconds += seconds
        return depth


def test_hiccup_at_a_depths_first_round_does_not_bar_it():
    """It is measured again at once; else its probes would seem too dear for long."""
    controller, world = DepthController(8), World(rate=0.9)
    world.run(controller, 2)
    world.base *= 10
    assert world.run(controller, 1) == [4]
    world.base /= 10

    assert max(world.run(controller, 40)) >= 4


def test_useless_drafter_is_parked():
    """Depth 0 after a few rounds, and plain speed nearly reached over 2,000 rounds."""
    controller, world = DepthController(8), World(rate=0.0)
    depths = world.run(controller, 2000)

    assert controller.selected(GREEDY) == 0
    assert depths[1000:].count(0) > 960
    assert world.tokens / world.seconds > 0.985 / world.base


def test_perfect_drafter_is_used_to_the_full():
    """The deepest depth within 60 rounds from nothing known."""
    controller, world = DepthController(8), World(rate=1.0)
    depths = world.run(controller, 60)

    assert controller.selected(GREEDY) >= 7
    assert depths[:2] == [0, 0]


@pytest.mark.parametrize(("rate", "step"), [(0.8, 0.4e-3), (0.6, 0.5e-3), (0.9, 1.2e-3)])
def test_choice_is_usually_the_best_depth_or_nearly(rate: float, step: float):
    """Against the known best of a world whose figures hold still, from nine starts."""

    def speed(depth: int) -> float:
        return sum(rate**i for i in range(depth + 1)) / (2.5e-3 + depth * step)

    shares = []
    for seed in range(9):
        controller = DepthController(8)
        World(rate, step=step, seed=seed).run(controller, 1000)
        shares.append(speed(controller.selected(GREEDY)) / max(speed(d) for d in range(9)))

    assert sorted(shares)[4] > 0.96
    assert min(shares) > 0.85


def test_drafter_that_becomes_useful_is_taken_up_again():
    """Parked for long, so that probes are rare; then every draft is right."""
    controller, world = DepthController(8), World(rate=0.0)
    world.run(controller, 3000)
    world.rate = 1.0
    depths = world.run(controller, 700)

    assert 8 in depths
    assert controller.selected(GREEDY) >= 4


def test_drafter_that_becomes_useless_is_parked_soon():
    """Fifty rounds without an accepted draft are enough."""
    controller, world = DepthController(8), World(rate=0.95)
    world.run(controller, 500)
    world.rate = 0.0
    world.run(controller, 50)

    assert controller.selected(GREEDY) == 0


def test_drafting_that_costs_more_than_it_brings_is_parked():
    """Good drafts, but a step costs as much as the target: acceptance alone decides nothing."""
    controller, world = DepthController(8), World(rate=0.8, step=2.5e-3)
    world.run(controller, 1000)

    assert controller.selected(GREEDY) == 0


@pytest.mark.parametrize("step", [1e-4, 1e-3, 1e-2])
def test_probes_of_a_parked_drafter_cost_a_small_share(step: float):
    """However dear a draft is, they take 1% of the time at most, and they never cease."""
    controller, world = DepthController(8), World(rate=0.0, step=step)
    depths = world.run(controller, 8000)[-4000:]

    assert sum(depth * step for depth in depths) <= 0.01 * len(depths) * world.base
    assert any(depths)


def test_regimes_do_not_share_what_they_learn():
    """A greedy drafter that is always wrong says nothing of sampled requests."""
    controller = DepthController(4)
    World(rate=0.0).run(controller, 100)

    assert not controller.trusted(Regime.SAMPLED, 1)
    assert chosen(controller, 4, Regime.SAMPLED) == 0
    with pytest.raises(ValueError, match="no round"):
        controller.rate(Regime.SAMPLED, 0)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_depth_never_exceeds_the_limit(limit: int):
    """Near the end of a request, or of the context."""
    controller, world = DepthController(8), World(rate=1.0)
    world.run(controller, 100)

    assert chosen(controller, limit) == limit


def test_host_stall_moves_a_cost_by_little():
    """One round that took a hundred times as long moves the average by 2.5% at most."""
    costs = CostTable()
    for seconds in [1.0] * 10 + [100.0]:
        costs.record(2, seconds)

    assert costs.estimate(2) < 1.025


def test_first_rounds_of_a_depth_take_their_median():
    """A start-up hiccup among the first samples leaves no trace."""
    costs = CostTable()
    for seconds in (9.0, 1.0, 1.2):
        costs.record(2, seconds)

    assert costs.estimate(2) == 1.2


def test_costs_between_and_beyond_measured_depths_lie_on_a_line():
    """Between neighbours, beyond the deepest with the slope of all, never cheaper when deeper."""
    costs = CostTable({0: 2.0, 2: 3.0, 4: 6.0})

    assert costs.estimates(6) == [2.0, 2.5, 3.0, 4.5, 6.0, 7.0, 8.0]
    assert CostTable({0: 2.0, 2: 1.0}).estimates(5) == [1.5] * 6
    assert CostTable({3: 2.0}).estimates(1) == pytest.approx([1.52, 1.68])


def test_what_makes_all_rounds_dearer_moves_depths_that_are_not_tried():
    """A context that grows must not make the depths not in use look better and better."""
    costs = CostTable()
    for depth, seconds in [(0, 1.0)] * 20 + [(4, 2.0)] * 50 + [(4, 4.0)] * 300:
        costs.record(depth, seconds)

    assert costs.estimate(4) == pytest.approx(4.0, rel=0.05)
    assert costs.estimate(0) == pytest.approx(2.0, rel=0.15)


def test_rates_start_from_the_prior_and_stand_alone_once_known():
    """Two samples' worth of optimism at first, none after twenty samples."""
    acceptance = AcceptanceTable()
    assert acceptance.committed(1) == pytest.approx([1.0, 1.75])
    for _ in range(20):
        acceptance.record([False])

    assert acceptance.trusted(1)
    assert not acceptance.trusted(2)
    assert acceptance.committed(3) == pytest.approx([1.0] * 4, abs=1e-5)


def test_rate_follows_a_change_of_text_within_few_rounds():
    """Sixty rejected drafts do not outweigh ten accepted ones."""
    acceptance = AcceptanceTable()
    for _ in range(60):
        acceptance.record([False])
    for _ in range(10):
        acceptance.record([True])

    assert acceptance.committed(1)[1] > 1.6


@settings(max_examples=100, deadline=None)
@given(
    rate=st.floats(0, 1),
    step=st.floats(1e-5, 2e-2),
    max_depth=st.integers(1, 8),
    rounds=st.integers(1, 150),
    seed=st.integers(0, 999),
)
def test_chosen_depth_is_never_thought_slower_than_depth_0(
    rate: float, step: float, max_depth: int, rounds: int, seed: int
):
    """Whatever was seen, the choice promises at least the rate of plain decoding.

    It was made with expectations that are a few rounds old, which noise may have moved since.
    """
    controller, world = DepthController(max_depth), World(rate, step=step, seed=seed)
    for depth in world.run(controller, rounds):
        assert 0 <= depth <= max_depth
    chosen(controller, max_depth)
    selected = controller.selected(GREEDY)

    if rounds > 10:
        assert controller.rate(GREEDY, selected) >= 0.995 * controller.rate(GREEDY, 0)


@settings(max_examples=50, deadline=None)
@given(rate=st.floats(0, 1), rounds=st.integers(0, 100), max_depth=st.integers(0, 8))
def test_state_comes_back_as_it_was(rate: float, rounds: int, max_depth: int):
    """What another controller restores, it exports again; and it chooses alike."""
    first, second = DepthController(max_depth), DepthController(max_depth)
    World(rate).run(first, rounds)
    second.restore(first.state())

    assert second.state() == first.state()
    if rounds > 10 and max_depth:
        assert chosen(second, max_depth) == second.selected(GREEDY)


def test_restored_costs_yield_to_the_first_new_sample():
    """The machine may be another one, or busy."""
    controller = DepthController(4)
    World(rate=1.0).run(controller, 50)
    restored = DepthController(4)
    restored.restore(controller.state())
    for _ in range(2):
        restored.record(1, 0, [(GREEDY, [])], 1.0)

    assert restored.rate(GREEDY, 0) == 1.0


def test_hiccup_at_the_start_does_not_spoil_restored_costs():
    """One slow first round must not make the depths that are not tried look dear for long."""
    costs = CostTable({0: 1.0, 4: 2.0, 6: 2.5})
    for seconds in (20.0, 4.0, 4.0):  # a machine half as fast, and a hiccup
        costs.record(4, seconds)

    assert costs.estimates(6)[0::2] == [2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 3, "regimes": {}},
        {"version": 2, "regimes": {"greedy": {"seconds": {"0": 1.0}, "acceptance": []}}},
        {"version": 2, "regimes": {"greedy": {"seconds": {"x": {}}, "acceptance": []}}},
        {"version": 1, "regimes": []},
        {"version": 1, "regimes": {"greedy": {}}},
        {"version": 1, "regimes": {"greedy": {"seconds": {"-1": 1.0}, "acceptance": []}}},
        {"version": 1, "regimes": {"greedy": {"seconds": {"0": 0}, "acceptance": []}}},
        {"version": 1, "regimes": {"greedy": {"seconds": {"0": "1"}, "acceptance": []}}},
        {"version": 1, "regimes": {"greedy": {"seconds": {}, "acceptance": [[1.5, 3]]}}},
        {"version": 1, "regimes": {"greedy": {"seconds": {}, "acceptance": [[0.5]]}}},
        {"version": 1, "regimes": {"greedy": {"seconds": {}, "acceptance": [[0.5, float("nan")]]}}},
    ],
)
def test_malformed_state_is_refused_and_changes_nothing(state: dict[str, object]):
    """It comes from a file that anything may have written."""
    controller = DepthController(4)
    before = controller.state()
    with pytest.raises(ValueError, match="depth state"):
        controller.restore(state)

    assert controller.state() == before


def test_state_of_version_1_is_read():
    """Its figures are those of one sequence a round."""
    old = {"seconds": {"0": 0.002, "4": 0.004}, "acceptance": [[0.8, 100], [0.7, 80]]}
    controller = DepthController(4)
    controller.restore({"version": 1, "regimes": {"greedy": old}})

    assert controller.rate(GREEDY, 0) == pytest.approx(500)
    assert controller.trusted(GREEDY, 2)
    assert controller.state()["version"] == 2


def test_widths_are_learned_apart_and_start_from_the_nearest():
    """What drafting costs beside seven others says nothing of drafting alone."""
    controller = DepthController(8)
    World(rate=0.8).run(controller, 300)
    alone = controller.selected(GREEDY)
    assert abs(chosen(controller, 8, width=8) - alone) <= 1
    for _ in range(300):
        depth = chosen(controller, 8, width=8)
        accepted = [True] * (depth // 2) + [False] * (depth > 0)
        controller.record(8, depth, [(GREEDY, accepted)] * 8, 2.5e-3 * (1 + 2 * depth))

    assert alone >= 2
    assert controller.selected(GREEDY, 8) == 0


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.name)
@pytest.mark.parametrize("text", TEXTS, ids=lambda t: t.name)
def test_auto_is_nearly_as_fast_as_the_best_fixed_depth(device: Device, text: Text):
    """Over simulated devices and texts; the bench prints the shares, these are loose bounds."""
    runs = [share(device, text, seed, 1000) for seed in range(3)]

    assert median(run.of_best for run in runs) > 0.9
    assert median(run.of_plain for run in runs) > 0.97
