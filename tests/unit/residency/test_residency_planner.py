"""Who leaves when the room is full."""

from hypothesis import given
from hypothesis import strategies as st

from gemmad.core import ModelName
from gemmad.residency.planner import Candidate, victims


def pair(name: str, users: int = 0, used: float = 0.0, leaving: bool = False) -> Candidate:
    return Candidate(ModelName.parse(name), users, used, leaving)


def chosen(*loaded: Candidate, incoming: int = 1, max_loaded: int = 3) -> list[str]:
    return [name.short for name in victims(loaded, incoming, max_loaded)]


def test_nobody_leaves_while_there_is_room():
    """A free place is used before anyone is asked to go."""
    assert chosen(pair("a"), pair("b")) == []


def test_the_idle_pair_used_longest_ago_leaves():
    """Least recently used among the idle."""
    assert chosen(pair("a", used=3), pair("b", used=1), pair("c", used=2)) == ["b"]


def test_a_busy_pair_stays_while_an_idle_one_can_go():
    """Even when the idle one was used last."""
    assert chosen(pair("a", users=1, used=1), pair("b", used=9), pair("c", users=1)) == ["b"]


def test_a_busy_pair_is_asked_when_all_are_busy():
    """Otherwise a stream of requests to loaded pairs would starve the newcomer."""
    assert chosen(pair("a", 1, 5), pair("b", 1, 2), pair("c", 1, 9)) == ["b"]


def test_a_leaving_pair_counts_as_room_to_come():
    """One departure is enough for one newcomer."""
    assert chosen(pair("a", leaving=True), pair("b"), pair("c")) == []


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.booleans()), max_size=6),
    st.integers(0, 4),
    st.integers(1, 6),
)
def test_just_enough_pairs_leave(facts, incoming, max_loaded):
    """Never more than the excess, never one that already leaves, never busy before idle."""
    loaded = [pair(f"m{n}", *fact) for n, fact in enumerate(facts)]
    leave = victims(loaded, incoming, max_loaded)

    staying = [p for p in loaded if not p.leaving]
    assert len(leave) == min(len(staying), max(0, len(staying) + incoming - max_loaded))
    kept_idle = [p for p in staying if p.users == 0 and p.name not in leave]
    assert not kept_idle or all(p.users == 0 for p in staying if p.name in leave)
