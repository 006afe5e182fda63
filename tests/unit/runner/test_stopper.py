"""Stop strings end an answer before they show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmarunner.stopper import Stopper


def stopped_at(stops: list[str], *pieces: str) -> tuple[str, bool]:
    """The text that is shown, and whether a stop string ended it."""
    stopper = Stopper(stops)
    text = "".join([*(stopper.feed(piece) for piece in pieces), stopper.close()])
    return text, stopper.stopped


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        ([], "all of it", ("all of it", False)),
        ([""], "all of it", ("all of it", False)),
        (["of"], "all of it", ("all ", True)),
        (["it."], "all of it", ("all of it", False)),
        (["END", "\n\n"], "a\n\nbEND", ("a", True)),
        (["abcd", "bc"], "abcd", ("a", True)),
        (["aab"], "aaab", ("a", True)),
        (["é"], "caféé", ("caf", True)),
    ],
)
def test_text_ends_before_the_first_complete_stop_string(
    stops: list[str], text: str, expected: tuple[str, bool]
) -> None:
    """Whole or by letters, the same text is shown."""
    assert stopped_at(stops, text) == expected
    assert stopped_at(stops, *text) == expected


def test_a_possible_beginning_is_held_back() -> None:
    """No part of a stop string is shown before it is known not to be one."""
    stopper = Stopper(["<end>"])

    assert [stopper.feed(piece) for piece in ("a<e", "nd", "!", "<")] == ["a", "", "<end!", ""]
    assert stopper.close() == "<"


@given(
    text=st.text("ab"),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    cut=st.integers(0, 100),
)
def test_chunking_does_not_matter(text: str, stops: list[str], cut: int) -> None:
    """Any cut of the same text shows the same, and never a stop string."""
    shown, was_stopped = stopped_at(stops, text[:cut], text[cut:])

    assert (shown, was_stopped) == stopped_at(stops, text)
    assert not any(stop in shown for stop in stops)
