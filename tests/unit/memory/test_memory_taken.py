"""What loads took is remembered, and used the next time."""

import pytest

from gemmad.core import digest_of
from gemmad.memory.estimate import Estimate, Setting
from gemmad.memory.taken import MAX_LOADS, Taken, Took

PAIR, OTHER = digest_of(b"a"), digest_of(b"b")
HOW = Setting(8192)
GUESS = Estimate(100, 10, 20, 1, 30, 40, 0, 500, 40, 0)


def test_what_a_load_took_comes_before_the_estimate(tmp_path):
    """Of the same pair, loaded in the same way; also after a restart."""
    taken = Taken(tmp_path / "taken.json")
    assert taken.corrected(PAIR, HOW, GUESS) == GUESS
    taken.learned(PAIR, HOW, Took(240, 600))
    taken.save()
    found = Taken(tmp_path / "taken.json").corrected(PAIR, HOW, GUESS)

    assert (found.device, found.host, found.source) == (240, 600, "measured")
    assert (found.target_weights, found.kv) == (GUESS.target_weights, GUESS.kv)


@pytest.mark.parametrize("other", [
    Setting(4096), Setting(8192, 2), Setting(8192, kind="cpu"), Setting(8192, drafter=False),
    Setting(8192, quantize="int8"), Setting(8192, draft_quantize="int8"),
])  # fmt: skip
def test_another_way_of_loading_is_another_matter(tmp_path, other):
    """So is another pair."""
    taken = Taken(tmp_path / "taken.json")
    taken.learned(PAIR, HOW, Took(240))
    assert taken.known(PAIR, other) is None
    assert taken.known(OTHER, HOW) is None
    assert taken.known(PAIR, Setting(8192, free=5)) is not None


def test_one_lucky_load_does_not_lower_much(tmp_path):
    """More is believed at once, less slowly."""
    taken = Taken(tmp_path / "taken.json")
    for took, known in ((200, 200), (300, 300), (200, 290), (200, 281)):
        taken.learned(PAIR, HOW, Took(took))
        assert taken.known(PAIR, HOW).device == known


def test_unified_memory_is_corrected_as_one(tmp_path):
    """The host's part is in the sum."""
    taken = Taken(tmp_path / "taken.json")
    taken.learned(PAIR, HOW, Took(900))
    unified = Estimate(100, 10, 20, 1, 30, 40, 0, 500, 40, 0, unified=True)
    found = taken.corrected(PAIR, HOW, unified)
    assert (found.device, found.host) == (900, 500)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "\0"])
def test_a_damaged_file_is_forgotten(tmp_path, text):
    """It is a hint."""
    path = tmp_path / "taken.json"
    path.write_text(text)
    taken = Taken(path)
    taken.learned(PAIR, HOW, Took(1))
    taken.save()
    assert Taken(path).known(PAIR, HOW) == Took(1)


def test_only_so_many_loads_are_kept(tmp_path):
    """The oldest are forgotten."""
    taken = Taken(tmp_path / "taken.json")
    for context in range(MAX_LOADS + 5):
        taken.learned(PAIR, Setting(context + 1), Took(1))
    assert taken.known(PAIR, Setting(5)) is None
    assert taken.known(PAIR, Setting(6)) is not None


def test_a_disk_that_is_full_is_no_trouble(tmp_path):
    """It is known until the daemon ends."""
    taken = Taken(tmp_path / "none" / "taken.json")
    taken.learned(PAIR, HOW, Took(1))
    taken.save()
    assert taken.known(PAIR, HOW) == Took(1)
