"""Figures of an answer follow from its final record, also from a sparse one."""

from gemmacli.answering import Collector, follow
from gemmacli.figures import last_line, table
from gemmacli.printer import SilentScreen
from gemmacli.records import figures, piece

FINAL = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 300_000_000,
    "load_duration": 0,
    "prompt_eval_count": 12,
    "prompt_eval_duration": 24_000_000,
    "eval_count": 42,
    "eval_duration": 233_000_000,
    "draft": {
        "depth": 4,
        "rounds": 12,
        "drafted": 50,
        "accepted": 39,
        "per_position": [0.9, 0.8, 0.75, 0.7],
        "tokens_per_round": 3.6,
    },
}


def test_the_last_line_says_all_that_matters() -> None:
    """Tokens, rate, first token, drafter."""
    assert last_line(figures(FINAL), 0.035) == (
        "42 tokens · 180 tok/s · first token 35 ms · "
        "drafter: depth 4, 78% accepted, 3.6 tokens per round"
    )


def test_loading_is_told_apart_from_the_first_token() -> None:
    """A cold start is not blamed on the model."""
    cold = figures(FINAL | {"load_duration": 1_200_000_000})

    assert "first token 1.24 s (loading 1.20 s)" in last_line(cold, 1.24)


def test_an_answer_without_drafting_says_so() -> None:
    """A record without draft figures, or with none drafted."""
    bare = {"eval_count": 1, "eval_duration": 0}
    parked = FINAL | {"draft": {"depth": 0, "rounds": 42, "drafted": 0}}

    assert last_line(figures(bare), None) == "1 token · drafter: not used"
    assert last_line(figures(parked), None).endswith("drafter: not used")


def test_the_table_holds_every_figure() -> None:
    """Rates are per second, positions in order."""
    rows = dict(table(figures(FINAL), 0.035))

    assert rows["eval rate"] == "180.26 tokens/s"
    assert rows["prompt eval rate"] == "500.00 tokens/s"
    assert rows["draft by position"] == "90% 80% 75% 70%"
    assert rows["draft accepted"] == "39 of 50 (78%)"
    assert rows["stopped by"] == "stop"


def test_pieces_come_from_both_routes() -> None:
    """generate and chat put the text in different places."""
    assert piece({"response": "a"}).text == "a"
    assert piece({"message": {"content": "a", "thinking": "b"}})[:2] == ("a", "b")
    assert piece({"done": True, "message": None}).final is not None


def test_the_first_token_is_timed_from_the_request() -> None:
    """Empty records before it do not count."""
    clock = iter([10.0, 10.25]).__next__
    records = iter([{"response": ""}, {"response": "a"}, {"response": "b"}, FINAL])
    answer = follow((record for record in records), SilentScreen(), Collector(clock))

    assert (answer.text, answer.first_token_s) == ("ab", 0.25)


def test_a_load_has_no_figures() -> None:
    """Nothing was answered, so nothing is measured."""
    load = {"done": True, "done_reason": "load"}
    answer = follow((record for record in [load]), SilentScreen(), Collector())

    assert answer.figures is None
