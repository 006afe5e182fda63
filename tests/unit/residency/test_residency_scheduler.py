"""The state machine of loads, leases and departures, stepped by hand."""

import math
from dataclasses import replace

import pytest

from gemmad.api.errors import Busy, LoadFailed, RunnerCrashed
from gemmad.core import ModelName
from gemmad.residency.placing import WaysOf
from gemmad.residency.resident import Resident
from gemmad.residency.scheduler import DRAIN_LIMIT_S, STOP_GRACE_S, Rules, Scheduler
from tests.fakes.machines import machine_of
from tests.fakes.residency_fakes import RecordingEffects, StubRunner, sized, waiter, wanted

A = ModelName.parse("a")


class World:
    """A scheduler, its effects, a machine, a clock; `ready` and `gone` play the runners' part."""

    def __init__(self, **rules) -> None:
        self.effects = RecordingEffects()
        defaults = {"max_loaded": 2, "max_queue": 4, "keep_alive_s": 300.0}
        ways = WaysOf(sized())
        self.scheduler = Scheduler(self.effects, Rules(**(defaults | rules)), ways, {})
        self.machine = machine_of(1 << 40)
        self.now = 0.0

    def settle(self):
        """The machine is looked at as often as the scheduler wants."""
        while self.scheduler.wants_look:
            self.scheduler.looked(self.machine, 0, self.now)

    def ask(self, name, keep_alive_s=None, priority="interactive", **what):
        asking = waiter(wanted(name, **what), keep_alive_s, priority)
        self.scheduler.requested(asking, self.now)
        self.settle()
        return asking

    def ready(self):
        resident = self.effects.loading.pop(0)
        self.scheduler.loaded(resident, StubRunner(), self.now)
        self.settle()
        return resident

    def failed(self, error):
        self.scheduler.load_failed(self.effects.loading.pop(0), error, self.now)
        self.settle()

    def gone(self, error=None):
        self.scheduler.gone(self.effects.stopping.pop(0), error, self.now)
        self.settle()

    def leave(self, asking):
        self.scheduler.left(asking, self.now)
        self.settle()

    def tick(self, seconds):
        self.now += seconds
        self.scheduler.tick(self.now)
        self.settle()

    def use(self, name, **what):
        asking = self.ask(name, **what)
        self.ready()
        self.leave(asking)
        return asking

    @property
    def log(self):
        seen, self.effects.log = self.effects.log, []
        return seen


def test_requests_for_one_pair_share_one_load():
    """Both are granted when the one runner is ready."""
    world = World()
    world.ask("a"), world.ask("A:latest")
    world.ready()

    assert world.log == ["load a", "grant a", "grant a"]


def test_an_idle_pair_leaves_after_its_keep_alive():
    """Not before, and the time counts from its last use."""
    world = World()
    world.use("a")
    world.tick(299)
    assert world.log == ["load a", "grant a"]

    world.tick(1)

    assert world.log == ["stop a"]


def test_a_busy_pair_outlives_its_keep_alive():
    """The clock runs only while nobody uses it."""
    world = World()
    world.ask("a", keep_alive_s=1)
    world.ready()
    world.tick(1000)

    assert "stop a" not in world.log


KEEP_ALIVES = (None, 5, 300, 900, math.inf)


@pytest.mark.parametrize("first", KEEP_ALIVES)
@pytest.mark.parametrize("second", KEEP_ALIVES)
@pytest.mark.parametrize("third", KEEP_ALIVES)
def test_keep_alive_is_what_the_last_request_that_named_it_said(first, second, third):
    """R06: a request that does not mention it never shortens it."""
    world = World()
    world.use("a", keep_alive_s=first)
    for keep_alive_s in (second, third):
        world.leave(world.ask("a", keep_alive_s=keep_alive_s))
    named = [said for said in (300, first, second, third) if said is not None]

    assert world.scheduler.next_tick(world.now) == named[-1]


def test_keep_alive_zero_unloads_after_the_request():
    """And not while another request still runs."""
    world = World()
    other = world.ask("a")
    last = world.ask("a", keep_alive_s=0)
    world.ready()
    world.leave(last)
    assert "stop a" not in world.log

    world.leave(other)

    assert world.log == ["stop a"]


def test_another_context_length_reloads_after_the_running_answer():
    """The running answer ends first, the newcomer gets its context, nobody is lost."""
    world = World()
    running = world.ask("a")
    world.ready()
    world.ask("a", num_ctx=8192, exact=True)
    assert world.log == ["load a", "grant a"]

    world.leave(running)
    world.gone()
    resident = world.ready()

    assert world.log == ["stop a", "load a", "grant a"]
    assert resident.wanted.num_ctx == 8192


def test_a_draining_pair_takes_no_new_work():
    """A request with the old context queues behind the one that waits for the reload."""
    world = World()
    running = world.ask("a")
    world.ready()
    world.ask("a", num_ctx=8192, exact=True)
    late = world.ask("a")
    world.leave(running)
    world.gone()
    world.ready()

    assert late in world.effects.granted  # 8192 serves a request that named no context
    assert world.log.count("load a") == 2


def test_a_larger_context_serves_who_did_not_name_one():
    """Without `num_ctx` a request does not reload a pair that has more room."""
    world = World()
    world.use("a", num_ctx=8192, exact=True)
    world.ask("a", num_ctx=4096)

    assert world.log == ["load a", "grant a", "grant a"]


def test_new_files_under_the_same_name_reload():
    """A pull that changed the pair is seen by the next request."""
    world = World()
    world.use("a", content=b"old")
    world.ask("a", content=b"new")

    assert world.log[-1] == "stop a"


def test_the_oldest_idle_pair_makes_room():
    """The newcomer loads when the process of the old one is gone, not before."""
    world = World(max_loaded=2)
    world.use("a")
    world.now = 5
    world.use("b")
    world.ask("c")
    assert world.log[-1] == "stop a"

    world.gone()

    assert world.log == ["load c"]


def test_a_newcomer_is_not_starved_by_busy_pairs():
    """R03: the pair asked to leave takes no new work; what comes for it waits its turn."""
    world = World(max_loaded=1)
    running = world.ask("a")
    world.ready()
    world.ask("b")
    world.ask("a")
    world.leave(running)
    world.gone()

    assert world.log == ["load a", "grant a", "stop a", "load b"]


def test_a_drain_has_a_deadline():
    """An answer that never ends cannot hold the place for ever."""
    world = World(max_loaded=1)
    world.ask("a")
    world.ready()
    world.ask("b")
    world.tick(DRAIN_LIMIT_S)

    assert world.log[-1] == "stop a"


def test_unload_lets_answers_finish_for_a_while():
    """R02: then the pair is stopped although it is busy."""
    world = World()
    world.ask("a")
    world.ready()
    world.scheduler.unload(A, world.now)
    world.tick(STOP_GRACE_S - 1)
    assert "stop a" not in world.log

    world.tick(1)

    assert world.log == ["stop a"]


def test_a_failed_load_answers_everyone_who_waited_for_it():
    """And the next request tries again."""
    world = World()
    first, second = world.ask("a"), world.ask("a")
    error = LoadFailed("no")
    world.failed(error)
    world.ask("a")

    assert world.effects.errors == {first: error, second: error}
    assert world.log == ["load a", "refuse a", "refuse a", "load a"]


def test_a_crashed_runner_is_replaced_for_the_next_request():
    """The users of the crashed one leave by themselves."""
    world = World()
    running = world.ask("a")
    resident = world.ready()
    world.scheduler.gone(resident, RunnerCrashed("boom"), world.now)
    world.leave(running)
    world.ask("a")

    assert world.log == ["load a", "grant a", "load a"]


def test_three_crashes_in_a_minute_open_the_breaker():
    """The pair is refused with the reason until a minute has passed."""
    world = World()
    for _ in range(3):
        world.ask("a")
        crash = RunnerCrashed("illegal instruction")
        world.failed(crash)
        world.now += 10
    refused = world.ask("a")
    world.now += 60
    world.ask("a")

    assert isinstance(world.effects.errors[refused], Busy)
    assert "illegal instruction" in world.effects.errors[refused].message
    assert world.log.count("load a") == 4


def test_a_full_queue_is_busy():
    """Waiting for a load and waiting for a slot of a busy pair count alike."""
    world = World(max_queue=2)
    world.ask("a")
    world.ready()
    world.ask("a"), world.ask("b")
    refused = world.ask("a")

    assert isinstance(world.effects.errors[refused], Busy)


def test_who_gives_up_while_waiting_is_forgotten():
    """Its place in the queue is free and the load ends idle."""
    world = World()
    world.leave(world.ask("a", keep_alive_s=5))
    world.ready()

    assert world.log == ["load a"]
    assert world.scheduler.next_tick(world.now) == 300


def test_a_pair_stopped_while_loading_tells_who_waited():
    """They are not left hanging, and the pair is not loaded again for them."""
    world = World()
    waiting = world.ask("a")
    world.scheduler.unload(A, world.now)
    world.gone()

    assert isinstance(world.effects.errors[waiting], Busy)
    assert world.log == ["load a", "refuse a", "stop a"]


def test_closing_stops_everything_and_refuses_what_comes():
    """Also what is still loading."""
    world = World()
    world.use("a")
    world.ask("b")
    world.scheduler.close(world.now)
    late = world.ask("a")

    assert world.log[-4:] == ["refuse b", "stop a", "stop b", "refuse a"]
    assert isinstance(world.effects.errors[late], Busy)


@pytest.mark.parametrize(
    ("loaded", "asked", "serves"),
    [
        ({}, {}, True),
        ({"quantize": "int8"}, {}, True),
        ({"quantize": "int8"}, {"exact_weights": True}, False),
        ({"quantize": "int8"}, {"quantize": "int8", "exact_weights": True}, True),
        ({}, {"deterministic": True, "exact_weights": True}, False),
        ({}, {"draft_quantize": "int4", "exact_weights": True}, False),
        ({"draft_quantize": "int4"}, {"draft_quantize": "int4", "exact_weights": True}, True),
    ],
)
def test_weights_are_loaded_again_only_on_request(loaded, asked, serves):
    """A request that says nothing takes what is there; one that names it gets what it names."""
    resident = Resident(replace(wanted("a"), **loaded), 1.0, 0.0)

    assert resident.serves(replace(wanted("a"), **asked)) is serves
