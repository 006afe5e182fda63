"""Random lives of the scheduler: nobody is lost, nothing is over its limit."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gemmad.api.errors import LoadFailed, RunnerCrashed
from gemmad.residency.resident import State
from gemmad.residency.scheduler import Scheduler
from tests.fakes.residency_fakes import RecordingEffects, StubRunner, waiter, wanted

MAX_LOADED, MAX_QUEUE = 2, 6


class Life(RuleBasedStateMachine):
    """Requests, loads, crashes and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.effects = RecordingEffects()
        self.scheduler = Scheduler(
            self.effects,
            max_loaded=MAX_LOADED,
            max_queue=MAX_QUEUE,
            slots=1,
            keep_alive_s=60,
        )
        self.alive = []  # in order: hypothesis replays

    @rule(
        name=st.sampled_from("abcd"),
        num_ctx=st.sampled_from([1024, 2048]),
        exact=st.booleans(),
        keep=st.sampled_from([None, 0, 5, float("inf")]),
    )
    def ask(self, name, num_ctx, exact, keep):
        asking = waiter(wanted(name, num_ctx, exact=exact), keep)
        self.alive.append(asking)
        self.scheduler.requested(asking, self.now)

    @precondition(lambda self: self.effects.loading)
    @rule(outcome=st.sampled_from(["ready", "ready", "ready", "failed", "crashed"]))
    def load_ends(self, outcome):
        resident = self.effects.loading.pop(0)
        if resident in self.effects.stopping and outcome != "ready":
            return  # a cancelled load says nothing
        if outcome == "ready":
            self.scheduler.loaded(resident, StubRunner(), self.now)
        else:
            error = LoadFailed("no") if outcome == "failed" else RunnerCrashed("boom")
            self.scheduler.load_failed(resident, error, self.now)

    @precondition(lambda self: self.effects.stopping)
    @rule()
    def stop_ends(self):
        resident = self.effects.stopping.pop(0)
        if resident in self.effects.loading:
            self.effects.loading.remove(resident)
        self.scheduler.gone(resident, None, self.now)

    @precondition(lambda self: any(True for _ in self.scheduler.residents))
    @rule(data=st.data())
    def crash(self, data):
        running = [r for r in self.scheduler.residents if r.state is State.READY]
        if running:
            resident = data.draw(st.sampled_from(running))
            self.scheduler.gone(resident, RunnerCrashed("boom"), self.now)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def leave(self, data):
        asking = data.draw(st.sampled_from(self.alive))
        self.alive.remove(asking)
        self.scheduler.left(asking, self.now)

    @rule(seconds=st.sampled_from([0.5, 10, 70, 400]))
    def wait(self, seconds):
        self.now += seconds
        self.scheduler.tick(self.now)

    @invariant()
    def no_more_processes_than_allowed(self):
        assert len(list(self.scheduler.residents)) <= MAX_LOADED

    @invariant()
    def who_waits_is_in_the_queue_or_has_an_answer(self):
        for asking in self.alive:
            answered = asking in self.effects.granted or asking in self.effects.errors
            assert answered or asking in self.scheduler._queue

    @invariant()
    def who_is_in_the_queue_has_something_to_wait_for(self):
        if self.scheduler._queue:
            assert any(r.state is not State.READY for r in self.scheduler.residents)

    def teardown(self):
        """Once answers end and loads succeed, everyone who waits is served."""
        for _ in range(200):
            for asking in [w for w in self.alive if w in self.effects.granted]:
                self.alive.remove(asking)
                self.scheduler.left(asking, self.now)
            if self.effects.stopping:
                self.stop_ends()
            elif self.effects.loading:
                resident = self.effects.loading.pop(0)
                self.scheduler.loaded(resident, StubRunner(), self.now)
        assert not self.scheduler._queue


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
