"""Pairs over two GPUs: when layers are split, who makes room on either, and what is told of it."""

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gemmad.api.errors import RunnerCrashed, WillNotFit
from gemmad.core import ByteCount, digest_of
from gemmad.memory.estimate import Setting
from gemmad.memory.split import Beside
from gemmad.memory.taken import Taken, Took
from gemmad.residency.fits import Allowed, Scales, ways
from gemmad.residency.resident import Drafter
from gemmad.residency.showing import Tally, snapshot
from gemmad.residency.weighing import Weigher
from gemmad.wire import DeviceTaken, Measured, PairFiles, Placed
from tests.bench.estimate import pair_shape
from tests.fakes.machines import machine_of
from tests.fakes.residency_fakes import wanted
from tests.fakes.residency_world import faults, ready
from tests.fakes.split_world import (
    DRAFTER,
    GPUS,
    LAYER,
    LAYERS,
    MOVABLE,
    RESERVE,
    TOTAL,
    TwoGpus,
    layers,
    placed,
    whole,
)

GIB = 1 << 30
SCALES = Scales(whole, layers)
ROOM = dict.fromkeys(GPUS, TOTAL - RESERVE)


def found(want, *, rooms=(ROOM,), gpus=(TOTAL, TOTAL), **allowed):
    """Every way on a machine with two GPUs."""
    return list(ways(want, machine_of(GIB, *gpus), Allowed(**allowed), SCALES, lambda: rooms))


def loaded(world: TwoGpus, name: str):
    """A pair in memory and idle."""
    asking = world.ask(name)
    world.load_ends()
    world.leave(asking)
    world.now += 1
    return next(r for r in world.scheduler.residents if r.wanted.name.short == name)


# --- ways ---


def test_layers_are_split_after_all_that_one_gpu_may_give_up():
    """Context, drafter, slots, packed weights; then several GPUs with the same; then the CPU."""
    told = found(wanted("big", 4096), slots=2, quantize="int4", cpu=True)
    kinds = [
        (way.tier, len(way.choice.devices), way.choice.setting.quantize, way.choice.device)
        for way in told
    ]

    assert list(dict.fromkeys(kind[:3] for kind in kinds)) == [
        (0, 1, None), (1, 1, "int4"), (2, 2, None), (3, 2, "int4"), (4, 1, None)
    ]  # fmt: skip
    assert kinds[-1][3] == "cpu"
    split = [way.choice.setting for way in told if way.tier == 2]
    assert [(s.num_ctx, s.drafter, s.slots) for s in split] == [
        (num_ctx, drafter, slots)
        for slots in (2, 1) for drafter in (True, False) for num_ctx in (4096, 2048)
    ]  # fmt: skip


def test_each_device_is_charged_what_lies_there():
    """Its layers with their keys and values; the drafter and the tables beside the last ones."""
    [fit] = [way.choice for way in found(wanted("big", 2048)) if way.choice.split and way.rank == 0]
    [(first, before), (last, after)] = fit.split

    assert before + after == LAYERS
    assert before <= MOVABLE
    assert placed(fit) == {last: after * LAYER + 190, first: before * LAYER + 30}
    assert fit.drafter_takes == {last: DRAFTER}
    assert (fit.device, next(iter(fit.takes))) == (last, last)


def test_a_split_says_which_layers_are_where_and_why():
    """In the words that `ps` and the event show."""
    split = [way.choice for way in found(wanted("big", 2048)) if way.choice.split]

    assert split[0].why == (
        "no single GPU has room for it: layers 0 to 5 on cuda:0, layers 6 to 9 on cuda:1 with "
        "embeddings, head and drafter"
    )
    assert split[-1].why.endswith("and head; without the drafter, until memory has room")


@pytest.mark.parametrize("gpus", [(TOTAL,), ()])
def test_one_gpu_is_never_split(gpus):
    """Nor is none."""
    assert {way.choice.split for way in found(wanted("big"), gpus=gpus)} == {()}


def test_a_pair_whose_files_nobody_has_read_is_not_split():
    """Nobody knows its layers."""
    assert {way.choice.split for way in found(wanted("small"))} == {()}


def test_layers_are_dealt_anew_for_each_room_that_may_come():
    """What is free now, and what others would give."""
    rooms = ({"cuda:0": 300, "cuda:1": 950}, {"cuda:0": 800, "cuda:1": 950}, ROOM)
    splits = [w.choice.split for w in found(wanted("big", 2048), rooms=rooms) if w.rank == 0]

    assert len(dict.fromkeys(split for split in splits if split)) == 2


# --- the scheduler ---


def test_a_pair_too_large_for_one_gpu_is_loaded_on_two():
    """The event names both, and so does what is shown while it loads."""
    world = TwoGpus()
    world.ask("big")
    [resident] = world.loading
    told = [reason for kind, _, reason in world.told if kind == "loading"]
    seen = snapshot(world.scheduler, world.rules, Tally().totals, 0.0, 0.0)

    assert resident.fit.devices == GPUS
    assert told[0].startswith("on cuda:0+cuda:1: no single GPU has room for it: layers 0 to")
    assert [(part.device, part.first) for part in seen.residents[0].target.layers] == [
        ("cuda:0", 0), ("cuda:1", resident.fit.split[0][1]),
    ]  # fmt: skip
    assert all(b.ours.target > 0 for b in seen.budgets if b.id in GPUS)
    assert [b.ours.drafter > 0 for b in seen.budgets if b.id in GPUS] == [False, True]


def test_a_loaded_split_pair_shows_what_its_runner_says():
    """Bytes by device of target and keys; what a device has beyond them is other."""
    world = TwoGpus()
    resident = loaded(world, "big")
    placement = tuple(
        Placed(what, device, nbytes)
        for device, target, kv in (("cuda:0", 500, 40), ("cuda:1", 700, 30))
        for what, nbytes in (("target", target), ("kv", kv))
    )
    runner = resident.runner
    runner.loaded = msgspec.structs.replace(runner.loaded, placement=placement)
    seen = snapshot(world.scheduler, world.rules, Tally().totals, world.now, 0.0)
    ours = {budget.id: budget.ours for budget in seen.budgets}

    assert seen.residents[0].target.device == "cuda:0+cuda:1"
    assert [(part.nbytes, part.kv_bytes) for part in seen.residents[0].target.layers] == [
        (500, 40), (700, 30)
    ]  # fmt: skip
    assert (ours["cuda:0"].target, ours["cuda:0"].kv, ours["cuda:0"].drafter) == (500, 40, 0)
    assert ours["cuda:0"].total == world.held[resident]["cuda:0"]
    assert ours["cuda:1"].drafter == DRAFTER


def test_a_small_pair_is_never_split():
    """One GPU has room for it."""
    world = TwoGpus()
    world.ask("small")

    assert world.loading[0].fit.split == ()


def test_idle_pairs_leave_both_gpus_for_a_split_one():
    """Each holds a third of a GPU."""
    world = TwoGpus()
    for name in ("small-a", "small-b"):
        loaded(world, name)
    assert {r.fit.device for r in world.scheduler.residents} == set(GPUS)
    world.ask("big")
    while world.detaching:
        world.give_ends()
    while world.stopping:
        world.stop_ends()

    assert world.overdrawn == ""
    assert [r.fit.devices for r in world.loading] == [GPUS]


@pytest.mark.parametrize("pressed", GPUS)
def test_pressure_on_either_gpu_makes_a_split_pair_leave(pressed):
    """Another program takes memory there; the drafter helps on its own GPU only."""
    world = TwoGpus()
    resident = loaded(world, "big")
    world.outside[pressed] = world.free(pressed)
    world.look()
    if resident.fit.device == pressed:
        assert world.detaching == [resident]
        world.give_ends()
        world.outside[pressed] += world.free(pressed)
        world.look()

    assert world.stopping == [resident]


@pytest.mark.parametrize("lost", GPUS)
def test_a_split_pair_has_to_show_that_it_lives_when_either_gpu_is_lost(lost):
    """And a lost GPU is not dealt to."""
    world = TwoGpus()
    resident = loaded(world, "big")
    world.lost = {lost}
    world.look()
    assert world.checking == [resident]

    world.crash(resident)
    refused = world.ask("big")

    assert isinstance(world.errors[refused], WillNotFit)


def test_a_load_that_ran_out_on_a_gpu_is_tried_again_without_the_drafter():
    """As on one GPU."""
    world = TwoGpus()
    asking = world.ask("big")
    world.load_ends(WillNotFit("cuda:0 has no room"))
    [again] = world.loading
    assert (again.fit.devices, again.fit.setting.drafter) == (GPUS, False)

    world.load_ends()

    assert world.granted[asking].drafter is Drafter.DETACHED


def test_what_does_not_fit_two_gpus_either_is_refused_by_numbers():
    """Of the split, which lacks least."""
    world = TwoGpus()
    world.outside = dict.fromkeys(GPUS, 300)
    refused = world.ask("big")

    assert "layers 0 to" in world.errors[refused].message


# --- what was learned ---


def test_what_a_device_really_took_is_remembered(tmp_path):
    """By device and by its place in the split: the next deal begins there."""
    weigher = Weigher(lambda _: PairFiles(target={}), Taken(tmp_path / "taken.json"))
    want, shape = wanted("12b", 4096), pair_shape("12b")
    weigher._shapes[want.manifest.id] = shape
    scales = Scales(weigher.weigh, weigher.layers)
    rooms = (dict.fromkeys(GPUS, 20 * GIB),)
    fit = next(
        way.choice
        for way in ways(
            want, machine_of(64 * GIB, 20 * GIB, 20 * GIB), Allowed(), scales, lambda: rooms
        )
        if way.choice.split
    )
    more = {id: fit.shares[id].total + (100 << 20) for id in GPUS}
    parts = tuple(DeviceTaken(id, nbytes, nbytes) for id, nbytes in more.items())
    took = Measured(
        device_bytes=1, host_bytes=1, target_bytes=1, drafter_bytes=1, kv_bytes=1, prefix_bytes=0,
        peak_device_bytes=1, devices=parts,
    )  # fmt: skip
    before = weigher.layers(want, fit.setting, GPUS).beside
    weigher.took(want.manifest, fit, took)
    after = weigher.layers(want, fit.setting, GPUS).beside

    first, last = fit.devices
    assert after[last] == Beside(before[last].last + (100 << 20), before[last].before)
    assert after[first] == Beside(before[first].last, before[first].before + (100 << 20))


def test_another_setting_or_place_teaches_nothing(tmp_path):
    """A device that was last is not known as another one before it."""
    taken, pair = Taken(tmp_path / "taken.json"), digest_of(b"a")
    taken.learned(pair, Setting(4096), Took(ByteCount(5)), "last cuda:1")

    assert taken.known(pair, Setting(4096), "last cuda:1") is not None
    for setting, place in ((Setting(4096), "before cuda:1"), (Setting(8192), "last cuda:1")):
        assert taken.known(pair, setting, place) is None
    assert taken.known(pair, Setting(4096)) is None


# --- random lives ---


class Lives(RuleBasedStateMachine):
    """Requests, loads, pressure and lost GPUs in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = TwoGpus()

    @rule(name=st.sampled_from(["small-a", "small-b", "big-a", "big-b"]))
    def ask(self, name):
        self.world.ask(name)

    @precondition(lambda self: self.world.loading)
    @rule(error=st.sampled_from([None, None, None, WillNotFit("no"), RunnerCrashed("boom")]))
    def load_ends(self, error):
        self.world.load_ends(error)

    @precondition(lambda self: self.world.stopping)
    @rule()
    def stop_ends(self):
        self.world.stop_ends()

    @precondition(lambda self: self.world.detaching)
    @rule()
    def give_ends(self):
        self.world.give_ends()

    @precondition(lambda self: self.world.attaching)
    @rule(error=st.sampled_from([None, WillNotFit("no room")]))
    def attach_ends(self, error):
        self.world.attach_ends(error)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def leave(self, data):
        self.world.leave(data.draw(st.sampled_from(self.world.alive)))

    @precondition(lambda self: ready(self.world))
    @rule(data=st.data())
    def crash(self, data):
        self.world.crash(data.draw(st.sampled_from(ready(self.world))))

    @rule(gpu=st.sampled_from(GPUS), nbytes=st.sampled_from([0, 0, 100, 400]))
    def another_program(self, gpu, nbytes):
        world = self.world
        world.outside[gpu] = 0
        world.outside[gpu] = min(nbytes, max(0, world.free(gpu)))
        world.look()

    @rule(lost=st.sampled_from([set(), set(), set(), {"cuda:0"}, {"cuda:1"}]))
    def lose(self, lost):
        self.world.lost = lost
        self.world.look()

    @rule(seconds=st.sampled_from([0.5, 10, 70]))
    def wait(self, seconds):
        self.world.wait(seconds)

    @invariant()
    def nothing_is_wrong(self):
        assert faults(self.world) == []


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
