"""The evaluation's questions and judges."""

from typing import Any

import pytest

from train.conversation import Item, Verdict
from train.grammar import values
from train.skills import SKILLS, SPLITS, items, judge

THOUGHT = "<|channel>thought\nI know.\n<channel|>"


def item(think: bool = False, **expected: Any) -> Item:
    """Return an item with the given expectation."""
    return Item(expected["skill"], "<bos>...<|turn>model\n", expected, think)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("skill", SKILLS)
def test_items_are_reproducible_and_end_where_the_model_starts(skill: str, split: str) -> None:
    """Every skill has questions in every split, the same for the same seed."""
    made = items(skill, split, 12, 0)

    assert made == items(skill, split, 12, 0)
    assert all(i.prompt.endswith(("model\n", "thought\n", "<tool_response|>")) for i in made)
    assert all(i.think == ("<|think|>" in i.prompt) for i in made)


def test_recall_values_are_held_out_except_in_the_seen_split() -> None:
    """`values` and `frames` ask for values that training never shows."""
    held = [values.held(i.expected["value"]) for s in SPLITS for i in items("recall", s, 20, 1)]

    assert held == [False] * 20 + [True] * 40


def test_half_of_the_think_items_think() -> None:
    """The think skill asks for thinking in every second item."""
    assert [i.think for i in items("think", "seen", 10, 0)] == [True, False] * 5


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Run `gemma list`. More.<turn|>", Verdict(True, True, True)),
        ("Run `gemma list`.", Verdict(True, True, False)),
        ("Run gemma list.<turn|>", Verdict(False, True, True)),
        (THOUGHT + "Run `gemma list`.<turn|>", Verdict(True, False, True)),
    ],
)
def test_howto_needs_the_command_in_backticks(answer: str, verdict: Verdict) -> None:
    """The command must be whole and quoted; advice may follow; no thought unasked."""
    got = judge(item(skill="howto", command="gemma list"), answer)

    assert verdict.well_formed_thinking == got.well_formed_thinking
    assert verdict.stopped == got.stopped
    assert verdict.right == got.right or not verdict.well_formed_thinking


def test_thinking_must_be_well_formed_when_asked() -> None:
    """One closed block before the answer; none or an open one is not well formed."""
    asked = item(True, skill="recall", value="Rosa")

    assert Verdict(True, True, True) == judge(asked, THOUGHT + "Your name is Rosa.<turn|>")
    assert not judge(asked, "Your name is Rosa.<turn|>").well_formed_thinking
    assert not judge(asked, "<|channel>thought\nRosa<turn|>").well_formed_thinking


def test_thought_opened_by_the_prompt_counts() -> None:
    """After a tool's result the prompt itself opens the thought."""
    asked = Item(
        "tool_answer", "...<|channel>thought\n", {"skill": "tool_answer", "values": ["7"]}, True
    )

    assert Verdict(True, True, True) == judge(
        asked, "It says 7.\n<channel|>The result is 7.<turn|>"
    )


def test_values_count_as_whole_words_only() -> None:
    """A value inside a longer word is not the value."""
    asked = item(skill="recall", value="Ros")

    assert not judge(asked, "Your name is Rosa.<turn|>").right
    assert judge(asked, "It is Ros!<turn|>").right


def test_calls_must_be_equal_to_the_letter() -> None:
    """Order, quoting and the stop token count."""
    calls = '<|tool_call>call:f{a:1,b:<|"|>x<|"|>}<tool_call|>'
    asked = item(skill="tool", calls=calls)

    assert judge(asked, calls + "<|tool_response>").right
    assert not judge(asked, calls + "<turn|>").right
    assert not judge(asked, calls.replace("1", "2") + "<|tool_response>").right


def test_json_is_compared_by_value_and_type() -> None:
    """Spacing and key order are free; 1 is not true."""
    asked = item(skill="json", json={"a": 1, "b": "x"})

    assert judge(asked, '{"b":"x", "a": 1}<turn|>').right
    assert not judge(asked, '{"a": true, "b": "x"}<turn|>').right
    assert not judge(asked, '{"a": 1<turn|>').right
