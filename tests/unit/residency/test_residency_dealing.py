"""Layers dealt to GPUs: whatever fits in any way is found, over as few as do, and evenly."""

from itertools import combinations, pairwise, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.memory.parts import LayerBytes
from gemmad.memory.split import Beside, Deal, SplitBytes, shares
from gemmad.residency.budgets import Held, Room, Situation, Way
from gemmad.residency.dealing import deal, levels, nearest
from gemmad.residency.planner import plan

small = st.integers(0, 9)


@st.composite
def problems(draw):
    """A pair of a few layers, and rooms that are often just enough or too little."""
    layers = draw(st.lists(st.builds(LayerBytes, st.integers(1, 9), small), min_size=1, max_size=6))
    ids = [f"cuda:{index}" for index in range(draw(st.integers(1, 4)))]
    pair = SplitBytes(
        layers=tuple(layers),
        movable=draw(st.integers(0, len(layers) - 1)),
        tables=draw(small),
        drafter=draw(small),
        beside={id: Beside(draw(small), draw(small)) for id in ids},
    )
    return pair, {id: draw(st.integers(-3, 40)) for id in ids}


def every_deal(pair, ids):
    """All that are legal, the fewest devices first."""
    count = len(pair.layers)
    for devices in range(1, len(ids) + 1):
        for order in permutations(ids, devices):
            for seams in combinations(range(1, pair.movable + 1), devices - 1):
                ends = (0, *seams, count)
                counts = tuple(b - a for a, b in pairwise(ends))
                yield Deal(order, counts)


def fits(pair, dealt, rooms):
    return all(share.total <= rooms[id] for id, share in shares(pair, dealt).items())


def is_legal(pair, dealt):
    before = sum(dealt.counts[:-1])
    whole = sum(dealt.counts) == len(pair.layers)
    return whole and before <= pair.movable and all(count > 0 for count in dealt.counts)


@given(problems())
@settings(max_examples=300)
def test_if_any_contiguous_split_fits_one_is_found(problem):
    """Compared with all that there are; what is found is one of them, over the fewest devices."""
    pair, rooms = problem
    fitting = [d for d in every_deal(pair, list(rooms)) if fits(pair, d, rooms)]
    several = [dealt for dealt in fitting if len(dealt.devices) > 1]

    found = deal(pair, rooms)

    if found is None:
        assert several == []
        return
    assert fits(pair, found, rooms)
    assert is_legal(pair, found)
    assert len(found.devices) <= min(len(dealt.devices) for dealt in several or fitting)


@given(problems())
@settings(max_examples=200)
def test_what_lacks_room_is_legal_too(problem):
    """So that it can be shown how much is missing."""
    pair, rooms = problem
    found = nearest(pair, rooms)

    assert found is None or (is_legal(pair, found) and len(found.devices) > 1)


def pair_of(count, *, movable=None, layer=10, last=0, before=0, devices=3):
    beside = {f"cuda:{index}": Beside(last, before) for index in range(devices)}
    layers = (LayerBytes(layer, 0),) * count
    return SplitBytes(layers, count - 1 if movable is None else movable, 0, 0, beside)


def test_layers_are_dealt_by_the_room_that_each_device_has():
    """Twice the room, twice the layers; both are filled to the same share."""
    found = deal(pair_of(30), {"cuda:0": 250, "cuda:1": 500})

    assert dict(found.split) == {"cuda:0": 10, "cuda:1": 20}


def test_a_third_device_is_left_alone_when_two_do():
    """Each device costs a context and a hand-over."""
    assert len(deal(pair_of(30), dict.fromkeys(("cuda:0", "cuda:1", "cuda:2"), 200)).devices) == 2


def test_layers_that_others_read_stay_with_the_head():
    """However little else there is on the other device."""
    found = deal(pair_of(30, movable=3), {"cuda:0": 280, "cuda:1": 280})

    assert found.counts == (3, 27)


def test_eight_devices_are_dealt_in_no_time():
    """Sixty layers over eight that are just enough: the owner of residency waits for it."""
    rooms = {f"cuda:{index}": 81 for index in range(8)}

    assert len(deal(pair_of(60, devices=8), rooms).devices) == 8


def test_rooms_are_told_in_the_order_in_which_they_come():
    """What is free, then with those on their way, with the idle, with the busy."""
    rooms = (Room("cuda:0", 100, free=40, reserve=10, coming=5),)
    idle = Held("a", False, {"cuda:0": 20})
    busy = Held("b", True, {"cuda:0": 30}, drafter={"cuda:0": 3})
    found = levels(Situation(rooms, (idle, busy)))

    assert [level["cuda:0"] for level in found] == [30, 35, 58, 88]


def test_who_gives_prefixes_gives_them_where_they_lie():
    """A split pair's kept prompts come free on both of its devices."""
    rooms = (Room("cuda:0", 100, free=0), Room("cuda:1", 100, free=10))
    held = Held("a", True, {"cuda:0": 50}, prefixes={"cuda:1": 12, "cuda:0": 8})
    before = Situation(rooms, (held,))
    way = Way({"cuda:0": 8})
    found = plan(before, [way])
    after = before.planned(way, found.steps)

    assert [(step.kind.name, step.nbytes) for step in found.steps] == [("RECLAIM", 20)]
    assert (after.room("cuda:0").coming, after.room("cuda:1").coming) == (8, 12)
