"""Random lives of the scheduler: nobody is lost, no memory is given twice, everything ends."""

import signal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gemmad.api.errors import LoadFailed, RunnerCrashed, WillNotFit
from gemmad.residency.planner import relief
from gemmad.residency.resident import State
from tests.fakes.residency_world import GPU, TOTAL, World, faults, ready

OUTCOMES = ["ready", "ready", "ready", "ready", "failed", "oom", "crashed", "starved"]
ATTACHED = [None, None, WillNotFit("no room"), LoadFailed("bad file"), RunnerCrashed("boom")]


class Life(RuleBasedStateMachine):
    """Requests, loads, crashes, other programs and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(
        name=st.sampled_from("abcde"),
        num_ctx=st.sampled_from([1024, 2048]),
        exact=st.booleans(),
        more_than=st.sampled_from([0, 0, 0, 1024]),
        keep=st.sampled_from([None, 0, 5, float("inf")]),
        priority=st.sampled_from(["interactive", "interactive", "batch"]),
    )
    def ask(self, name, num_ctx, exact, more_than, keep, priority):
        outgrown = 0 if exact or more_than >= num_ctx else more_than
        self.world.ask(name, keep, priority, num_ctx=num_ctx, exact=exact, more_than=outgrown)

    @precondition(lambda self: self.world.loading)
    @rule(outcome=st.sampled_from(OUTCOMES), took=st.sampled_from([0.7, 1.0]))
    def load_ends(self, outcome, took):
        self.world.load_ends(outcome, took)

    @precondition(lambda self: self.world.stopping)
    @rule()
    def stop_ends(self):
        self.world.stop_ends()

    @precondition(lambda self: self.world.reclaiming or self.world.detaching)
    @rule()
    def give_ends(self):
        self.world.give_ends()

    @precondition(lambda self: self.world.attaching)
    @rule(error=st.sampled_from(ATTACHED))
    def attach_ends(self, error):
        self.world.attach_ends(error)

    @precondition(lambda self: ready(self.world))
    @rule(data=st.data(), code=st.sampled_from([-signal.SIGKILL, -signal.SIGSEGV, 1]))
    def crash(self, data, code):
        self.world.crash(data.draw(st.sampled_from(ready(self.world))), code)

    @precondition(lambda self: ready(self.world))
    @rule(data=st.data(), nbytes=st.sampled_from([5, 40]))
    def grow(self, data, nbytes):
        self.world.grow(data.draw(st.sampled_from(ready(self.world))), nbytes)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def leave(self, data):
        self.world.leave(data.draw(st.sampled_from(self.world.alive)))

    @rule(seconds=st.sampled_from([0.5, 2, 10, 70, 400]))
    def wait(self, seconds):
        self.world.wait(seconds)
        late = [w for w in self.world.scheduler.queue._waiters if w.deadline <= self.world.now]

        assert not late

    @rule(nbytes=st.sampled_from([0, 0, 0, 100, 300, 700]))
    def another_program(self, nbytes):
        """Memory goes to somebody else, or comes back."""
        world = self.world
        world.outside = min(nbytes, max(0, TOTAL - world.held))
        world.look()
        here = world.scheduler.residents.situation(world.machine, world.now)
        gpu = here.room(GPU)
        missing = gpu.reserve - gpu.free - gpu.soon

        assert missing <= 0 or relief(here, {GPU: missing}) == ()  # all who can give, give

    @rule(lost=st.sampled_from([False] * 9 + [True]))
    def gpu(self, lost):
        self.world.lost = lost
        self.world.look()

    @rule(seconds=st.sampled_from([30, 4000]))
    def sleep(self, seconds):
        """The machine is suspended: nobody is late for it, and no idle pair leaves for it."""
        idle = [r for r in self.world.scheduler.residents if r.idle]
        self.world.now += seconds
        self.world.scheduler.slept(seconds, self.world.now)
        self.world.settle()
        self.world.scheduler.tick(self.world.now)
        self.world.settle()

        # Memory may have gone to others, but no keep_alive ran out.
        expired = [r for r in idle if r.expires <= self.world.now and not r.users]
        assert not expired

    @rule(name=st.sampled_from("abcde"))
    def unload(self, name):
        resident = next(
            (r for r in self.world.scheduler.residents if r.wanted.name.short == name), None
        )
        if resident:
            self.world.scheduler.unload(resident.wanted.name, self.world.now)
            self.world.settle()

    @invariant()
    def nothing_is_wrong(self):
        assert faults(self.world) == []

    @invariant()
    def who_waits_has_something_to_wait_for(self):
        """A load, a departure, a gift, a free slot, or memory that comes back."""
        scheduler, now = self.world.scheduler, self.world.now
        for asking in scheduler.queue.ordered(now):
            home = scheduler.residents.get(asking.wanted.name)
            waits_for_slot = home is not None and len(home.users) >= home.slots
            moving = any(r.state is not State.READY or r.under_way for r in scheduler.residents)
            assert moving or waits_for_slot or scheduler.residents.is_returning

    def teardown(self):
        """Once answers end and runners do what they are told, everyone who waits is served."""
        world = self.world
        world.outside, world.lost = 0, False
        for _ in range(300):
            for asking in [w for w in world.alive if w in world.granted]:
                world.leave(asking)
            if world.stopping:
                world.stop_ends()
            elif world.loading:
                world.load_ends("ready")
            elif world.reclaiming or world.detaching:
                world.give_ends()
            elif world.attaching:
                world.attach_ends(None)
            elif len(world.scheduler.queue):
                world.wait(0.5)
            else:
                break
        assert not len(world.scheduler.queue)
        assert world.now < 1e6
        assert faults(world) == []


class ManyLives(Life):
    """The same, for long."""


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestManyLives = pytest.mark.slow(pytest.mark.timeout(3600)(ManyLives.TestCase))
TestManyLives.settings = settings(
    max_examples=5_000,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
