"""Who gives up memory, and when a pair will not fit: by example, and against every legal plan."""

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.core import ModelName
from gemmad.residency.budgets import PLACES, Held, Kind, Room, Situation, Step, Way
from gemmad.residency.planner import plan, relief

GPU, HOST = "cuda:0", "cpu"
NOW = 1000.0


def name(text: str) -> ModelName:
    return ModelName.parse(text)


def held(text: str, rest=50, drafter=0, prefixes=0, *, busy=False, used=0.0, reload_s=1.0) -> Held:
    return Held(
        name(text),
        busy,
        {GPU: rest, PLACES: 1},
        {GPU: drafter} if drafter else {},
        {GPU: prefixes} if prefixes else {},
        used,
        reload_s,
    )


def room(free: int, reserve: int = 0, pending: int = 0, coming: int = 0, later: int = 0) -> Room:
    return Room(GPU, 1000, free, reserve, pending, coming, later=later)


def situation(*pairs: Held, free: int = 0, spare: int = 0, loading=(), **figures) -> Situation:
    places = Room(PLACES, 99, 99 - len(pairs))
    spares = {GPU: spare} if spare else {}
    return Situation((room(free, **figures), places), pairs, spares, frozenset(loading), NOW)


def wants(nbytes: int, rank: int = 0, tier: int = 0, device: str = GPU) -> Way:
    return Way({device: nbytes, PLACES: 1}, rank, tier)


def steps(found) -> list[str]:
    return [f"{step.kind.name.lower()} {step.name.short if step.name else '-'}" for step in found]


def test_what_fits_is_loaded_and_nobody_gives_anything():
    """Free memory is used before anyone is asked."""
    found = plan(situation(held("a", 50, 10, 10), free=100, spare=5), [wants(100)])

    assert (found.way, found.steps, found.waits) == (wants(100), (), False)


def test_the_reserve_and_loads_under_way_are_not_free():
    """Of 100 free bytes, 30 are spoken for."""
    here = situation(free=100, reserve=10, pending=20)

    assert plan(here, [wants(70)]).steps == ()
    assert plan(here, [wants(71)]).shortage is not None


@pytest.mark.parametrize(
    ("missing", "who"),
    [
        (10, ["reclaim a"]),
        (15, ["reclaim a", "reclaim b"]),
        (23, ["reclaim a", "reclaim b", "spare -"]),
        (30, ["reclaim a", "reclaim b", "spare -", "detach a"]),
        (73, ["reclaim b", "spare -", "stop a"]),  # with the pair its parts come free, too
    ],
)
def test_who_gives_first(missing, who):
    """Prefixes, the spare, idle drafters, idle pairs, busy drafters; no more than is needed."""
    here = situation(
        held("a", 40, 8, 10, used=1, reload_s=0.01),
        held("b", 900, 12, 10, used=2, busy=False, reload_s=1e9),
        held("c", 900, 60, 0, busy=True),
        spare=5,
    )

    assert steps(plan(here, [wants(missing)]).steps) == who


def test_a_busy_drafter_leaves_after_idle_pairs():
    """That costs a running answer speed, but no words."""
    here = situation(held("a", 40), held("c", 900, 60, busy=True))

    assert steps(plan(here, [wants(40)]).steps) == ["stop a"]
    assert steps(plan(here, [wants(90)]).steps) == ["stop a", "detach_busy c"]


def test_of_prefixes_only_what_is_missing_is_taken():
    """The rest of the snapshots stay for the next prompt."""
    found = plan(situation(held("a", 50, 0, 40), free=30), [wants(45)])

    assert found.steps == (Step(Kind.RECLAIM, name("a"), 15),)


def test_a_large_pair_alone_is_enough():
    """What was taken before it is given back: nothing leaves that is not needed."""
    here = situation(held("a", 500, 10, 10, used=5), held("b", 5, 5, 5, used=900))

    assert steps(plan(here, [wants(400)]).steps) == ["stop a"]


def test_the_least_valuable_idle_pair_goes():
    """Not used for long, quick to load again, large: in one figure."""
    here = situation(
        held("old", 100, used=0), held("slow", 100, used=0, reload_s=60), held("new", 100, used=990)
    )

    assert steps(plan(here, [wants(100)]).steps) == ["stop old"]


def test_a_busy_target_is_never_stopped():
    """It finishes its answers first, and takes nothing new."""
    found = plan(situation(held("a", 100, busy=True)), [wants(100)])

    assert steps(found.steps) == ["drain a"]


def test_what_is_leaving_is_waited_for():
    """Nobody else is asked."""
    found = plan(situation(held("a", 100), coming=100), [wants(100)])

    assert (found.steps, found.waits) == ((), True)


def test_evictions_wait_for_loads_in_the_same_memory():
    """Until they have ended, what is free is not known."""
    found = plan(situation(held("a", 100), pending=10, free=10, loading=[GPU]), [wants(100)])

    assert (found.steps, found.waits) == ((), True)


def test_a_pair_that_is_being_loaded_can_go_later():
    """It is no reason to say that nothing will fit."""
    here = situation(free=100, pending=80, later=80, loading=[GPU])

    assert plan(here, [wants(90)]).waits


def test_ways_are_tried_in_their_order():
    """A way that gives up more is taken only when the one before cannot be had now."""
    here = situation(held("a", 50, busy=True), held("b", 30), free=20)

    assert plan(here, [wants(60, rank=0), wants(50, rank=1)]).way == wants(50, rank=1)
    assert plan(here, [wants(50, rank=0), wants(20, rank=1)]).way == wants(50, rank=0)


def test_a_busy_pair_is_waited_for_before_the_next_tier():
    """Packed weights last as long as the pair: a few seconds of waiting do not."""
    here = situation(held("a", 50, busy=True), free=20)
    found = plan(here, [wants(60, tier=0), wants(20, tier=1)])

    assert (found.way, steps(found.steps)) == (wants(60), ["drain a"])


def test_the_device_where_least_is_lost_is_chosen():
    """A free GPU before one whose pair would have to go."""
    rooms = (room(20), Room("cuda:1", 1000, 90), Room(PLACES, 9, 8))
    here = Situation(rooms, (held("a", 100),))

    assert plan(here, [wants(80), wants(80, device="cuda:1")]).way == wants(80, device="cuda:1")


def test_what_will_not_fit_is_told_in_numbers():
    """Needed, free and what could be freed, of the smallest way."""
    here = situation(held("a", 50, 10, 5, busy=True), free=30, reserve=10, spare=3)
    shortage = plan(here, [wants(500), wants(100, rank=1)]).shortage

    assert shortage is not None
    assert shortage[:4] == (GPU, 100, 20, 68)


def test_pressure_takes_what_can_be_had():
    """As much of it as anybody idle may give; a busy target stays."""
    here = situation(held("a", 50, 10, busy=True), held("b", 20, used=1))

    assert steps(relief(here, {GPU: 500})) == ["stop b", "detach_busy a"]


def test_who_comes_later_is_planned_around_who_came_first():
    """What the first one's plan frees is the first one's."""
    here = situation(held("a", 50, used=1), held("b", 50, used=2))
    first = plan(here, [wants(50)])
    then = here.planned(first.way, first.steps)

    assert steps(first.steps) == ["stop a"]
    assert plan(then, [wants(50)]).waits  # once the first is loaded, b may go for it


# --- against every legal plan ---


def gives(pair: Held, kinds: frozenset[Kind]) -> int:
    if kinds & {Kind.STOP, Kind.DRAIN}:
        return sum(part.get(GPU, 0) for part in (pair.rest, pair.drafter, pair.prefixes))
    total = pair.drafter.get(GPU, 0) if kinds & {Kind.DETACH, Kind.DETACH_BUSY} else 0
    return total + (pair.prefixes.get(GPU, 0) if Kind.RECLAIM in kinds else 0)


def choices(pair: Held, *, drains: bool) -> list[frozenset[Kind]]:
    """All that one pair may legally give."""
    parts = [frozenset(), frozenset([Kind.RECLAIM])]
    detach = Kind.DETACH_BUSY if pair.is_busy else Kind.DETACH
    parts += [part | {detach} for part in parts]
    if not pair.is_busy:
        parts.append(frozenset([Kind.STOP]))
    elif drains:
        parts.append(frozenset([Kind.DRAIN]))
    return parts


def can_fit(here: Situation, way: Way, *, drains: bool, later: bool = False) -> bool:
    """Whether any set of gifts makes room: every one is tried."""
    [gpu, places] = here.rooms
    needs_place = 0 if places.left + places.coming >= 1 else 1
    left = gpu.left + gpu.coming + (gpu.later if later else 0)
    for spare in (0, here.spare.get(GPU, 0)):
        for given_ in product(*(choices(pair, drains=drains) for pair in here.held)):
            ended = sum(bool(kinds & {Kind.STOP, Kind.DRAIN}) for kinds in given_)
            freed = sum(map(gives, here.held, given_))
            if left + spare + freed >= way.takes[GPU] and ended >= needs_place:
                return True
    return False


def chance(rng: random.Random, pairs: int) -> tuple[Situation, list[Way]]:
    """A random situation and random ways."""
    held_ = tuple(
        held(
            f"m{index}",
            rng.randrange(0, 80),
            rng.choice((0, rng.randrange(1, 20))),
            rng.choice((0, rng.randrange(1, 20))),
            busy=rng.random() < 0.4,
            used=rng.randrange(1000),
            reload_s=rng.choice((0.5, 1.0, 30.0)),
        )
        for index in range(rng.randrange(pairs + 1))
    )
    loads = rng.random() < 0.2
    pending = rng.randrange(40) if loads else 0
    gpu = room(
        rng.randrange(120),
        rng.choice((0, 10)),
        pending,
        coming=rng.choice((0, 0, rng.randrange(40))),
        later=pending,
    )
    places = Room(PLACES, 9, rng.choice((0, 1, 3)))
    spare = {GPU: rng.randrange(1, 15)} if rng.random() < 0.5 else {}
    here = Situation((gpu, places), held_, spare, frozenset([GPU] if loads else []), NOW)
    first = rng.randrange(1, 250)
    ways = [wants(first), wants(first * 2 // 3, rank=1), wants(first // 2, tier=1)]
    return here, ways[: rng.randrange(1, 4)]


def check_legal(here: Situation, found) -> None:
    """Every step is one that its pair may take, once, and a busy target is only drained."""
    pairs = {pair.name: pair for pair in here.held}
    assert len({(step.kind, step.name) for step in found.steps}) == len(found.steps)
    assert list(found.steps) == sorted(found.steps, key=lambda step: step.kind)
    for step in found.steps:
        if step.kind in (Kind.STOP, Kind.DETACH):
            assert not pairs[step.name].is_busy
        if step.kind in (Kind.DRAIN, Kind.DETACH_BUSY):
            assert pairs[step.name].is_busy
        if step.kind is Kind.RECLAIM:
            assert 0 < step.nbytes <= pairs[step.name].prefixes[GPU]


def makes_room(here: Situation, way: Way, taken) -> bool:
    then = here.planned(Way({}), taken)
    rooms = {r.id: r.left + r.coming for r in then.rooms}
    return all(rooms[budget] >= nbytes for budget, nbytes in way.takes.items())


def check(here: Situation, ways: list[Way]) -> None:
    """The plan is legal, enough, and nothing of it can be left out."""
    found = plan(here, ways)
    if found.way is None:
        assert found.shortage is not None
        return
    check_legal(here, found)
    if found.waits:
        return
    assert makes_room(here, found.way, found.steps)
    for left_out in found.steps:
        fewer = [step for step in found.steps if step is not left_out]
        assert not makes_room(here, found.way, fewer)
        if left_out.kind is Kind.RECLAIM:
            less = left_out._replace(nbytes=left_out.nbytes - 1)
            assert not makes_room(here, found.way, [*fewer, less])


def check_exactly(here: Situation, ways: list[Way]) -> None:
    """The same, and the way is the first for which there is a legal plan at all."""
    found = plan(here, ways)
    for tier in sorted({way.tier for way in ways}):
        mine = [way for way in ways if way.tier == tier]
        for drains, later in ((False, False), (True, True)):
            for way in mine:
                if can_fit(here, way, drains=drains, later=later):
                    assert found.way == way
                    return
    assert found.shortage is not None


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_plan_is_found_wherever_there_is_one(seed):
    """Small situations against brute force: no eviction too many, no refusal too early."""
    here, ways = chance(random.Random(seed), pairs=3)
    check(here, ways)

    check_exactly(here, ways)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_thousand_situations():
    """2,000 of them small enough for brute force."""
    rng = random.Random(5)
    for _ in range(2_000):
        here, ways = chance(rng, pairs=4)
        check(here, ways)
        check_exactly(here, ways)
    for _ in range(98_000):
        check(*chance(rng, pairs=12))
