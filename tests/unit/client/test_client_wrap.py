"""Wrapped text is the same words, on lines that fit."""

import random

from hypothesis import given
from hypothesis import strategies as st

from gemmacli.wrap import WordWrap


def wrapped(text: str, width: int, pieces: int = 1) -> str:
    wrap = WordWrap(width)
    step = max(1, len(text) // pieces)
    fed = [wrap.feed(text[at : at + step]) for at in range(0, len(text), step)]
    return "".join(fed) + wrap.flush()


def test_a_long_line_breaks_between_words() -> None:
    """The space at the break becomes the line end."""
    assert wrapped("one two three four", 9) == "one two\nthree\nfour"


def test_indentation_and_line_ends_stay() -> None:
    """Code keeps its shape where it fits."""
    text = "if x:\n    y = 1\n\nend\n"

    assert wrapped(text, 40) == text


def test_a_word_longer_than_the_line_is_cut_nowhere_it_is_lost() -> None:
    """A long address is printed whole, over several lines."""
    assert wrapped("x" * 25, 10).replace("\n", "") == "x" * 25


def test_wide_characters_count_twice_and_may_break_anywhere() -> None:
    """Chinese has no spaces to wait for."""
    lines = wrapped("模型" * 8, 10).splitlines()

    assert max(len(line) for line in lines) <= 5


@given(st.lists(st.text("ab é模", min_size=1), max_size=20), st.integers(4, 12))
def test_words_survive_whatever_the_pieces(words: list[str], width: int) -> None:
    """The pieces in which text comes change nothing."""
    text = " ".join(words)

    assert wrapped(text, width, random.Random(1).randint(1, 9)) == wrapped(text, width)
    assert wrapped(text, width).replace("\n", "").replace(" ", "") == text.replace(" ", "")
