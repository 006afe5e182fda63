"""What the training distribution may and may not contain."""

import json
import re
from random import Random

import pytest

from train.grammar import frames, howto, mix, values
from train.grammar.chat import SUGGESTED
from train.grammar.frames import Bank, Draw, bank, expand, sections
from train.grammar.services import SERVICES
from train.render import render

FILES = ("chat", "howto", "json", "noise", "recall", "slots", "stories", "tools", "topics")


BANKS = [
    *(bank(name, section) for name in FILES for section in sections(name)),
    *(service.frames for service in SERVICES),
]
HELD = {clause.key for b in BANKS for clause in b.held}


def test_sample_is_deterministic() -> None:
    """The same seed gives the same conversation."""
    assert mix.sample(Random(7)) == mix.sample(Random(7))


def test_alternatives_expand_to_every_form() -> None:
    """(a|b) stands for both; an empty alternative leaves no double space."""
    assert expand("get (a|) the x") == ("get a the x", "get the x")


def test_a_tenth_of_the_clauses_is_held_out() -> None:
    """Hash splitting holds out 7 to 13 percent over all banks of the how-to wording."""
    banks = [bank("howto", name) for name in sections("howto")]
    held = sum(len(b.held) for b in banks)
    total = held + sum(len(b.seen) for b in banks)

    assert 0.07 < held / total < 0.13


def test_training_never_draws_a_held_out_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 6,000 training conversations no bank hands out a held-out clause."""
    drawn: set[str] = set()
    original = Draw.clause

    def recording(draw: Draw, wanted: Bank) -> frames.Clause:
        clause = original(draw, wanted)
        drawn.add(clause.key)
        return clause

    monkeypatch.setattr(Draw, "clause", recording)
    rng = Random(1)
    for _ in range(6_000):
        mix.dialogue(rng)

    assert len(drawn) > 2000
    assert not drawn & HELD


def test_no_form_is_both_seen_and_held_out() -> None:
    """A held-out line shares no wording with a line that is trained on."""
    for b in BANKS:
        seen = {form for clause in b.seen for form in clause.forms}

        assert not seen.intersection(form for clause in b.held for form in clause.forms)


def test_held_out_openers_are_absent_from_training_text() -> None:
    """The literal words of held-out how-to openers never open a training question."""
    patterns = [
        re.compile(
            re.escape(form).replace(r"\{do\}", ".+").replace(r"\{doing\}", r"\w+ing\b.*"), re.I
        )
        for clause in howto.OPENERS.held
        for form in clause.forms
        if len(form.split()) >= 4
    ]
    rng = Random(2)
    questions = [howto.question(Draw(rng)).user for _ in range(6_000)]

    found = [p.pattern for p in patterns if any(p.fullmatch(q) for q in questions)]

    assert not found


def test_suggested_prompts_lie_inside_the_training_distribution() -> None:
    """No prompt that is suggested to users holds a held-out value."""
    words = {w for text in SUGGESTED for w in re.findall(r"[A-Z]?[a-z]+", text)}
    listed = {v for options in values.LISTS.values() for v in options}

    assert not [word for word in words & listed if values.held(word)]


def test_values_obey_the_split() -> None:
    """Training values are never held out; evaluation values always are."""
    rng = Random(3)
    seen = [values.free(Draw(rng), values.anything) for _ in range(2000)]
    held = [values.free(Draw(rng, hold_values=True), values.anything) for _ in range(2000)]

    assert not any(map(values.held, seen))
    assert all(map(values.held, held))


def test_calls_copy_arguments_from_the_request() -> None:
    """Every text argument of a call stands in the user's message."""
    rng = Random(4)
    for _ in range(500):
        user = ""
        for message in mix.dialogue(rng).messages:
            user = message["content"] if message["role"] == "user" else user
            for call in message.get("tool_calls", ()):
                for value in call["function"]["arguments"].values():
                    assert isinstance(value, bool) or str(value) in user


def test_json_answers_parse() -> None:
    """Whatever looks like JSON in an answer is JSON."""
    rng = Random(5)
    turns = [m for _ in range(800) for m in mix.dialogue(rng).messages]
    texts = [m["content"] for m in turns if m["role"] == "assistant"]
    objects = [t for t in texts if t.startswith(("{", "["))]

    assert len(objects) > 50
    assert all(json.loads(text) is not None for text in objects)


def test_thoughts_appear_only_when_asked_for() -> None:
    """A conversation without the think token has no thinking block."""
    rng = Random(6)
    for _ in range(300):
        made = mix.dialogue(rng)
        text = render(made).text

        assert made.think == ("<|channel>" in text)
        assert made.think == ("<|think|>" in text)


def test_gerunds_are_english() -> None:
    """Verb phrases turn into gerunds with the usual spelling."""
    phrases = ("get it", "remove it", "see it", "permanently delete it", "run it", "rm it")

    assert [howto.gerund(phrase) for phrase in phrases] == [
        "getting it",
        "removing it",
        "seeing it",
        "permanently deleting it",
        "running it",
        "rm it",
    ]
