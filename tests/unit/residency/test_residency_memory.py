"""What happens when memory is short: examples of the order, of second tries and of patience."""

import signal
from dataclasses import replace

from gemmad.api.errors import Busy, LoadFailed, RunnerCrashed, WillNotFit
from gemmad.core import ByteCount
from gemmad.memory.readings import HOST
from gemmad.residency.breaker import OPEN_S
from gemmad.residency.placing import WaysOf
from gemmad.residency.queue import AGE_S
from gemmad.residency.reloads import RELOADS, WINDOW_S
from gemmad.residency.resident import Drafter, State
from gemmad.residency.roster import SETTLE_S
from gemmad.residency.seen import Totals
from gemmad.residency.showing import snapshot
from tests.fakes.residency_fakes import sized, wanted
from tests.fakes.residency_world import DRAFTER, RESERVE, TARGET, TOTAL, World

BIG = TARGET + DRAFTER


def loaded(world: World, *names: str) -> None:
    """Pairs that are in memory and idle, or busy when the name is in capitals."""
    for name in names:
        asking = world.ask(name.lower())
        world.load_ends("ready")
        if name.islower():
            world.leave(asking)
        world.now += 1


def log(world: World) -> list[str]:
    seen, world.log = world.log, []
    return seen


def resident(world: World, name: str):
    return next(r for r in world.scheduler.residents if r.wanted.name.short == name)


def test_the_oldest_idle_drafter_leaves_before_an_idle_pair():
    """A third pair needs a drafter's room: it costs the idle one speed, and no reload."""
    world = World()
    loaded(world, "a", "b")
    world.outside = TOTAL - RESERVE - 3 * BIG + DRAFTER
    log(world)
    world.ask("c")
    assert log(world) == ["detach a"]

    world.give_ends()

    assert log(world) == ["load c"]


def test_a_busy_drafter_leaves_and_its_target_goes_on():
    """Nothing idle is there: the running answer loses its drafter, not its pair."""
    world = World()
    loaded(world, "A")
    world.outside = TOTAL - RESERVE - 2 * BIG + DRAFTER
    log(world)
    world.ask("b")

    assert log(world) == ["detach a"]
    assert resident(world, "a").state is State.READY


def test_a_dropped_drafter_comes_back_when_there_is_room():
    """By itself, some seconds after the pressure, without a reload of the target."""
    world = World()
    loaded(world, "A")
    world.outside = TOTAL - BIG - RESERVE + DRAFTER
    world.look()
    world.give_ends()
    assert log(world)[-1] == "detach a"

    world.outside = 0
    world.wait(1)
    assert log(world) == []
    world.wait(5)
    world.attach_ends(None)

    assert log(world) == ["attach a"]
    assert resident(world, "a").drafter is Drafter.ATTACHED


def test_a_drafter_does_not_come_back_into_the_last_of_the_memory():
    """There is more room than it takes, or it would leave again at once."""
    world = World()
    loaded(world, "A")
    world.outside = TOTAL - BIG - RESERVE + 1
    world.look()
    world.give_ends()
    world.outside -= 1
    world.wait(60)

    assert "attach a" not in log(world)


def test_a_drafter_that_cannot_come_back_is_set_aside():
    """For a bad file for good, for want of memory for a while."""
    world = World()
    loaded(world, "A")
    for error, after in (
        (WillNotFit("no"), Drafter.DETACHED),
        (LoadFailed("bad"), Drafter.SET_ASIDE),
    ):
        world.outside = TOTAL - BIG - RESERVE + DRAFTER
        world.wait(100)
        if world.detaching:
            world.give_ends()
        world.outside = 0
        world.wait(100)
        world.attach_ends(error)
        assert resident(world, "a").drafter is after


def test_outside_pressure_stops_at_the_reserve():
    """First the idle drafters, then the idle pair of least worth; the busy one stays."""
    world = World(max_loaded=3)
    loaded(world, "A", "b")
    log(world)
    world.outside = TOTAL - 2 * BIG - RESERVE + DRAFTER
    world.look()
    assert log(world) == ["detach b"]
    world.give_ends()
    world.outside += TARGET
    world.look()
    world.stop_ends()

    assert log(world) == ["stop b"]
    assert world.free >= RESERVE


def test_an_answer_that_holds_up_a_departure_is_no_relief():
    """A draining pair gives its memory when its answer has ended: others give meanwhile."""
    world = World()
    loaded(world, "A", "b")
    world.ask("a", num_ctx=8192, exact=True)
    assert resident(world, "a").state is State.DRAINING
    world.outside = TOTAL - 2 * BIG - RESERVE + 10
    world.look()

    assert log(world)[-1] == "detach b"


def test_memory_pressure_that_the_system_tells_takes_small_steps():
    """Every ten seconds a twentieth of the host, however often it is looked at."""
    world = World()
    machine = world.machine
    pressed = replace(machine, host=replace(machine.host, pressure=90.0))
    for now in (0.0, 1.0, 2.0):
        world.scheduler.looked(pressed, 300, now)

    assert world.spares_dropped == 1


def test_the_spare_leaves_for_host_memory():
    """It is the first to go after prefixes; no pair is touched for it."""
    world = World()
    machine = world.machine
    short = replace(machine.host, available=ByteCount(0))
    host = replace(machine.device(HOST), free=ByteCount(0))
    world.scheduler.looked(replace(machine, devices=(machine.devices[0], host), host=short), 300, 0)

    assert log(world) == ["drop spare"]


def test_a_load_that_runs_out_of_memory_is_tried_again_without_its_drafter():
    """Everything idle leaves first, whatever the figures say; the request knows nothing of it."""
    world = World()
    loaded(world, "b")
    asking = world.ask("a")
    log(world)
    world.load_ends("oom")
    assert log(world) == ["stop b"]
    world.stop_ends()
    assert log(world) == ["load a"]
    world.load_ends("ready")

    assert log(world) == ["grant a"]
    assert asking in world.granted
    assert resident(world, "a").drafter is Drafter.DETACHED


def test_a_load_that_runs_out_of_memory_twice_is_an_error():
    """The request learns why, and the next one begins anew."""
    world = World()
    asking = world.ask("a")
    world.load_ends("oom")
    world.load_ends("oom")

    assert isinstance(world.errors[asking], WillNotFit)
    assert log(world) == ["load a", "load a", "refuse a"]


def test_a_load_that_the_system_kills_ran_out_of_memory_too():
    """R08: tried once without its drafter, then in numbers; and not for ever."""
    world = World()
    asking = world.ask("a")
    world.load_ends("starved")
    world.load_ends("starved")
    again = world.ask("a")
    world.load_ends("starved")
    error = world.errors[asking]

    assert isinstance(error, WillNotFit)
    assert "was estimated to take 0 MiB of cuda:0" in error.message  # figures of a toy machine
    assert isinstance(world.errors[again], Busy)
    assert log(world).count("load a") == 3


def test_a_smaller_way_is_taken_when_nothing_else_fits():
    """Without the drafter, and the target's smallest form: all before 'will not fit'."""
    world = World()
    world.outside = TOTAL - RESERVE - TARGET
    world.ask("a")
    assert world.loading[0].fit.takes == {"cuda:0": TARGET}

    assert world.loading[0].drafter is Drafter.DETACHED


def test_will_not_fit_is_said_in_numbers():
    """Needed, free and what could be freed."""
    world = World()
    world.outside = TOTAL - RESERVE - 100
    asking = world.ask("a")
    error = world.errors[asking]

    assert isinstance(error, WillNotFit)
    assert "it needs 0 MiB, 0 MiB are free" in error.message  # figures of a toy machine


def test_who_wants_less_is_not_left_behind_by_who_wants_too_much():
    """Both wait for one pair; when the first is refused, the second is decided at once."""

    def of_context(want, machine, rooms):
        return sized(want.num_ctx // 10)(want, machine, rooms)

    world = World(WaysOf(of_context))
    world.ask("a", num_ctx=1024, exact=True)
    large = world.ask("a", num_ctx=100_000, exact=True)
    world.ask("a", num_ctx=4096, exact=True)
    log(world)
    world.load_ends("failed")

    assert isinstance(world.errors[large], WillNotFit)
    assert log(world) == ["refuse a", "refuse a", "load a"]


def test_a_runner_that_grew_makes_the_last_look_old():
    """What it took since then is not given to a newcomer, though it come at once."""
    world = World()
    loaded(world, "a")
    world.outside = TOTAL - RESERVE - 2 * BIG
    world.look()
    world.grow(resident(world, "a"), 1)
    world.ask("b")

    assert world.overdrawn == ""


def test_a_drafter_that_kills_its_runner_is_set_aside():
    """After the second crash the target goes on alone, and says why."""
    world = World()
    for _ in range(2):
        asking = world.ask("a")
        world.load_ends("ready")
        world.crash(resident(world, "a"), -signal.SIGSEGV)
        world.leave(asking)
        world.now += 1
    world.ask("a")

    assert world.loading[0].drafter is Drafter.SET_ASIDE
    assert world.loading[0].fit.setting.drafter is False
    assert "died with it" in world.loading[0].drafter_why
    assert ("drafter_set_aside", "a", world.loading[0].drafter_why) in world.told


def test_a_drafter_set_aside_earlier_stays_so():
    """By the daemon before this one; once its user stops the pair, it may try again."""
    key = wanted("a").manifest.id
    world = World(set_aside={key: "it did harm"})
    loaded(world, "a")
    assert resident(world, "a").drafter is Drafter.SET_ASIDE
    assert resident(world, "a").drafter_why == "it did harm"
    world.scheduler.unload(wanted("a").name, world.now)
    world.stop_ends()
    world.ask("a")

    assert world.kept == {}
    assert resident(world, "a").drafter is Drafter.ATTACHED


def test_a_drafter_that_is_set_aside_is_kept_so():
    """Whoever comes after this daemon is told."""
    world = World()
    world.ask("a")
    world.loading[0].heard.progress = type("P", (), {"phase": "drafter"})()
    world.load_ends("crashed")

    assert world.kept == {wanted("a").manifest.id: "its runner died with it: boom"}


def test_a_drafter_is_cleared_by_a_crash_without_it():
    """Its target alone dies as well: whatever it was, the drafter comes back with the next load."""
    world = World()
    world.ask("a")
    world.loading[0].heard.progress = type("P", (), {"phase": "drafter"})()
    world.load_ends("crashed")
    assert world.loading[0].drafter is Drafter.SET_ASIDE
    world.load_ends("crashed")
    world.ask("a")

    assert world.kept == {}
    assert world.loading[0].drafter is Drafter.ATTACHED


def test_a_drafter_is_not_blamed_for_a_kill():
    """SIGKILL is the system's or a person's."""
    world = World()
    for _ in range(2):
        asking = world.ask("a")
        world.load_ends("ready")
        world.crash(resident(world, "a"), -signal.SIGKILL)
        world.leave(asking)
    world.ask("a")

    assert world.loading[0].drafter is Drafter.ATTACHED


def test_a_crash_in_the_drafter_phase_of_a_load_is_not_the_request_s_trouble():
    """It is loaded again at once, without the drafter."""
    world = World()
    asking = world.ask("a")
    world.loading[0].heard.progress = type("P", (), {"phase": "drafter"})()
    world.load_ends("crashed")
    world.load_ends("ready")

    assert asking in world.granted
    assert resident(world, "a").drafter is Drafter.SET_ASIDE


def test_clients_that_take_turns_are_told_after_some_reloads():
    """R07: three reloads a minute of one pair, then advice and a time; the loaded one serves on."""
    world = World()
    sizes = [4096, 8192] * 3
    refused = None
    for num_ctx in sizes:
        asking = world.ask("a", num_ctx=num_ctx, exact=True)
        if world.stopping:
            world.stop_ends()
        if world.loading:
            world.load_ends("ready")
        if asking in world.errors:
            refused = refused or (world.errors[asking], num_ctx)
        world.leave(asking)
        world.now += 1

    assert isinstance(refused[0], Busy)
    assert "num_ctx" in refused[0].fix
    assert 1 <= refused[0].retry_after_s <= WINDOW_S
    assert log(world).count("load a") == 1 + RELOADS


def test_unloads_by_hand_are_no_reloads():
    """Whoever stops and starts a model by hand may do so as often as he likes."""
    world = World()
    for _ in range(8):
        loaded(world, "a")
        world.scheduler.unload(resident(world, "a").wanted.name, world.now)
        world.stop_ends()

    assert "refuse a" not in log(world)


def test_batch_requests_wait_for_a_free_slot():
    """An interactive one is served first, though it comes later."""
    world = World()
    running = world.ask("a")
    world.load_ends("ready")
    batch = world.ask("a", priority="batch")
    world.ask("a")
    assert batch not in world.granted
    world.leave(running)
    assert batch not in world.granted  # the interactive one has the slot

    world.leave(world.alive[-1])

    assert batch in world.granted


def test_an_old_batch_request_does_not_starve():
    """After a while it counts as interactive, however many of those there are."""
    world = World()
    world.ask("a")
    world.load_ends("ready")
    batch = world.ask("a", priority="batch")
    for _ in range(6):
        world.wait(AGE_S / 5)
        world.leave(world.ask("a"))

    assert batch in world.granted


def test_interactive_requests_are_loaded_for_first():
    """With one place, the pair of the later interactive request comes before the batch one's."""
    world = World(max_loaded=1)
    loaded(world, "A")
    world.ask("b", priority="batch")
    world.ask("c")
    log(world)
    world.leave(world.alive[0])
    world.stop_ends()

    assert log(world)[-1] == "load c"


def test_a_request_has_its_pair_or_an_error_by_its_deadline():
    """Here a load that never ends: its own deadline, or the request's, whichever is first."""
    world = World(queue_s=100.0)
    asking = world.ask("a")
    world.wait(101)

    assert isinstance(world.errors[asking], Busy)


def test_a_load_that_never_ends_is_stopped():
    """R01: the state has a deadline, and who waited is told."""
    world = World(load_s=60.0)
    asking = world.ask("a")
    world.wait(61)

    assert log(world) == ["load a", "refuse a", "stop a"]
    assert "not loaded within 60 s" in world.errors[asking].message


def test_a_runner_that_never_gives_is_not_counted_on():
    """After its time the plan goes on without it."""
    world = World()
    loaded(world, "a", "b")
    world.outside = TOTAL - RESERVE - 3 * BIG + DRAFTER
    world.ask("c")
    world.wait(SETTLE_S + 1)

    assert log(world)[-1] == "detach b"


def test_a_suspended_machine_is_late_for_nobody():
    """R16: no idle pair expires, no load is given up; every runner has to show that it lives."""
    world = World()
    loaded(world, "a")
    world.ask("b")
    log(world)
    world.now += 7200
    world.scheduler.slept(7200, world.now)
    world.scheduler.tick(world.now)
    world.settle()

    assert log(world) == ["check a"]
    assert {r.state for r in world.scheduler.residents} == {State.READY, State.LOADING}


def test_a_lost_gpu_is_said_and_its_runners_are_checked():
    """R16: an error that names it, never a silent CPU."""
    world = World()
    loaded(world, "a")
    log(world)
    world.lost = True
    world.look()
    asking = world.ask("b")

    assert log(world) == ["check a", "refuse b"]
    assert "gpu lost: 999" in world.errors[asking].message


def test_a_gpu_that_comes_late_is_used():
    """R17: the machine is looked at for every load."""
    world = World()
    world.lost = True
    world.ask("a")
    world.lost = False
    world.now += 1
    world.ask("a")

    assert log(world) == ["refuse a", "load a"]


def test_a_crashing_pair_is_started_three_times_a_minute_at_most():
    """R09: whatever clients do, and its last words are kept."""
    world = World()
    for _ in range(100):
        asking = world.ask("a")
        while world.loading:
            world.load_ends("crashed")
        world.leave(asking)
        world.now += 0.5

    assert log(world).count("load a") <= 4
    record = world.scheduler.breaker.record(asking.wanted.name, world.now)
    assert (record.crashes, record.reason) == (3, "boom")


def test_a_pair_that_is_refused_for_its_crashes_is_shown():
    """Though it is not in memory; not for longer than it is refused."""
    world = World()
    for _ in range(3):
        world.leave(world.ask("a"))
        world.load_ends("crashed")
        while world.loading:
            world.load_ends("crashed")

    def refused(now: float) -> list[tuple[str, str]]:
        seen = snapshot(world.scheduler, world.rules, Totals(), now, 0.0)
        return [(one.name, one.crashes.reason) for one in seen.refused]

    assert refused(world.now) == [("a:latest", "boom")]
    assert refused(world.now + OPEN_S) == []


def test_a_killed_runner_s_words_are_kept():
    """The log lines of the last crash are there for `ps`."""
    world = World()
    loaded(world, "A")
    crash = RunnerCrashed("boom", exit_code=-9, log_tail=["one", "two"])
    world.scheduler.gone(resident(world, "a"), crash, world.now)
    name = world.alive[0].wanted.name

    assert world.scheduler.breaker.record(name, world.now).log_tail == ("one", "two")
