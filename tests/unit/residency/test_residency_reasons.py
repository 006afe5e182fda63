"""Why drafters were set aside, from one daemon to the next."""

from gemmad.core import Digest
from gemmad.residency.reasons import MAX_PAIRS, Reasons

A = Digest("sha256:" + "a" * 64)


def test_the_next_daemon_knows_the_reasons(tmp_path):
    """And a pair that may try again is not among them."""
    path = tmp_path / "set_aside.json"
    Reasons(path, "1").save({A: "it did harm"})
    assert Reasons(path, "1").known() == {A: "it did harm"}
    Reasons(path, "1").save({})

    assert Reasons(path, "1").known() == {}


def test_another_version_begins_anew(tmp_path):
    """It may have mended what did the harm."""
    path = tmp_path / "set_aside.json"
    Reasons(path, "1").save({A: "it did harm"})

    assert Reasons(path, "2").known() == {}


def test_an_unreadable_file_is_forgotten(tmp_path):
    """It is a hint; a damaged one stops nothing."""
    path = tmp_path / "set_aside.json"
    path.write_text('{"version": "1", "reasons": [')

    assert Reasons(path, "1").known() == {}


def test_the_latest_reasons_are_kept(tmp_path):
    """The file does not grow with every pair there ever was."""
    path = tmp_path / "set_aside.json"
    Reasons(path, "1").save({Digest(f"sha256:{n:064x}"): "harm" for n in range(MAX_PAIRS + 5)})
    known = Reasons(path, "1").known()

    assert len(known) == MAX_PAIRS
    assert Digest(f"sha256:{MAX_PAIRS + 4:064x}") in known
