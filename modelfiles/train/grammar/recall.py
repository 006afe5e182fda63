"""Facts a person states and asks for some turns later."""

from collections.abc import Callable
from typing import NamedTuple

from train.grammar import values
from train.grammar.frames import Bank, Draw, bank, sections, words
from train.grammar.noise import typed

STATEMENTS, SYSTEM, QUESTIONS = (bank("recall", n) for n in ("statements", "system", "questions"))
ACKS, CORRECTIONS = bank("recall", "ack"), bank("recall", "corrections")
LABELS = words("recall", "labels")
OWN: dict[str, Bank] = {n: bank("recall", n) for n in sections("recall") if "." in n}


class Kind(NamedTuple):
    """A kind of fact: its label in a sentence, the answer that states it, and its values."""

    name: str
    label: str
    answer: str
    make: Callable[[Draw], str]
    own_share: float  # how often its own wording is used, rather than that of any fact


class Fact(NamedTuple):
    """A fact in somebody's life."""

    kind: Kind
    label: str
    value: str
    pet: str


def _age(draw: Draw) -> str:
    return str(5 + draw.below(90))


def _birthday(draw: Draw) -> str:
    day, month = 1 + draw.below(28), draw.choose(values.LISTS["months"])
    return f"{day} {month}" if draw.chance(0.5) else f"{month} {day}"


def _code(draw: Draw) -> str:
    return values.digits(draw) if draw.chance(0.7) else values.mixed(draw)


KINDS = (
    Kind("name", "name", "Your name is {v}.", values.name, 0.6),
    Kind("city", "city", "You live in {v}.", values.city, 0.75),
    Kind("age", "age", "You are {v} years old.", _age, 0.65),
    Kind("job", "job", "You work as {a}.", values.job, 0.6),
    Kind("colour", "favourite colour", "Your favourite colour is {v}.", values.colour, 0.3),
    Kind("food", "favourite food", "Your favourite food is {v}.", values.food, 0.4),
    Kind("pet", "{k}", "Your {k} is called {v}.", values.name, 0.9),
    Kind("word", "word", "The word is {v}.", values.nonsense, 1.0),
    Kind("number", "number", "The number is {v}.", values.digits, 1.0),
    Kind("birthday", "birthday", "Your birthday is {v}.", _birthday, 0.5),
    Kind("hobby", "hobby", "Your hobby is {v}.", values.hobby, 0.4),
    Kind("instrument", "instrument", "You play the {v}.", values.instrument, 0.8),
)
ANY = Kind("any", "{l}", "Your {l} is {v}.", values.anything, 0.0)


def fact(draw: Draw, name: str | None = None) -> Fact:
    """Return a fact with a value the split allows; most of the kinds have wording of their own."""
    if name is None:
        kind = ANY if draw.chance(0.35) else draw.choose(KINDS)
    else:
        kind = ANY if name == "any" else next(k for k in KINDS if k.name == name)
    label, pet, make = kind.label, "", kind.make
    if kind is ANY:
        label = _any_label(draw)
        if "number" in label or "code" in label:
            make = _code
    if kind.name == "pet":
        label = pet = draw.choose(values.LISTS["animals"])
    return Fact(kind, label, values.free(draw, make), pet)


def _any_label(draw: Draw) -> str:
    if draw.chance(0.7):
        return draw.choose(LABELS)
    noun = draw.choose(values.NOUNS)
    return f"favourite {noun}" if draw.chance(0.5) else noun


def statement(draw: Draw, known: Fact) -> str:
    """Return the fact as the user says it."""
    return _filled(typed(draw, _frame(draw, known, ".say", STATEMENTS)), known)


def correction(draw: Draw, known: Fact) -> str:
    """Return the fact as the user says it when it replaces an earlier one."""
    frame = draw.pick(CORRECTIONS) + " " + draw.pick(STATEMENTS)
    return _filled(frame, known)


def changed(draw: Draw, known: Fact) -> Fact:
    """Return the same kind of fact with another value."""
    make = values.digits if known.value.isdigit() else known.kind.make
    return known._replace(value=values.free(draw, make))


def stated_in_system(draw: Draw, known: Fact) -> str:
    """Return the fact as a system message says it."""
    text = draw.pick(SYSTEM)
    return _filled(text[:1].upper() + text[1:], known)


def question(draw: Draw, known: Fact) -> str:
    """Return a question whose answer is the fact."""
    frame = typed(draw, _frame(draw, known, ".ask", QUESTIONS))
    return _filled(frame, known)


def answer(known: Fact) -> str:
    """Return the sentence that states the fact to its owner."""
    return _filled(known.kind.answer, known)


def unknown(known: Fact) -> str:
    """Return the answer when the fact has never been stated."""
    match known.kind.name:
        case "pet":
            return f"You have not told me about your {known.pet}."
        case "word" | "number":
            return f"You have not told me a {known.label}."
        case _:
            return f"You have not told me your {known.label}."


def thought(known: Fact, told: bool = True) -> str:
    """Return the thought before the answer, which restates the value."""
    owner = "the" if known.kind.name in ("word", "number") else "their"
    if not told:
        return f"The user asks for {owner} {known.label}. They have not told me."
    return f"The user asks for {owner} {known.label}. Earlier they said {known.value}."


def acknowledgement(draw: Draw, known: Fact) -> str:
    """Return the short reply to a stated fact."""
    if known.kind.name == "name":
        return f"Nice to meet you, {known.value}."
    return draw.pick(ACKS)


def _frame(draw: Draw, known: Fact, suffix: str, shared: Bank) -> str:
    own = OWN.get(known.kind.name + suffix)
    if own is None or (known.kind.own_share < 1.0 and not draw.chance(known.kind.own_share)):
        return draw.pick(shared)
    return draw.pick(own)


def _filled(frame: str, known: Fact) -> str:
    text = frame.replace("{l}", known.label).replace("{k}", known.pet)
    if "{a}" in text:
        text = text.replace("{a}", f"{article(known.value)} {known.value}")
    return text.replace("{v}", known.value)


def article(noun: str) -> str:
    """Return `an` before a vowel, else `a`."""
    return "an" if noun[:1].lower() in "aeiou" else "a"
