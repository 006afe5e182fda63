"""Values that the model must copy: names, words, numbers, ids; one in eight never trained on.

Half of the training values come from word lists, half are random strings, so that nothing but
copying works.
"""

from collections.abc import Callable
from typing import Any

from train.grammar.frames import Draw, is_held, sections, words

HELD_VALUE_ONE_IN = 8

ONSETS, VOWELS = words("values", "onsets"), words("values", "vowels")
CODAS = ["", "", "", "", *words("values", "codas")]
COMMON, NOUNS, SMALL = (words("words", name) for name in ("common", "nouns", "small"))
CATALOGUE = ("nano", "gemma4:e2b", "gemma4:e4b", "gemma4:12b", "gemma4:26b", "gemma4:31b")
LISTS = {name: words("values", name) for name in sections("values")}


def held(text: str) -> bool:
    """Return whether a value is kept out of training."""
    return is_held("value|" + text.lower(), HELD_VALUE_ONE_IN)


def free(draw: Draw, make: Callable[[Draw], str]) -> str:
    """Return a value of `make` that the draw's split allows."""
    while True:
        value = make(draw)
        if held(value) == draw.hold_values:
            return value


def syllables(draw: Draw) -> str:
    """Return a made-up word of one to three syllables."""
    choose = draw.choose
    count = 1 + draw.below(3)
    return "".join(choose(ONSETS) + choose(VOWELS) + choose(CODAS) for _ in range(count))


def pieces(draw: Draw) -> str:
    """Return one to three pieces of English words, run together."""
    count = 1 + draw.below(3)
    return "".join(_piece(draw) for _ in range(count))


def _piece(draw: Draw) -> str:
    word = draw.choose(COMMON)
    length = 2 + draw.below(4)
    return word[:length] if draw.chance(0.5) else word[-length:]


def common(draw: Draw) -> str:
    """Return an English word."""
    return draw.choose(COMMON)


def nonsense(draw: Draw) -> str:
    """Return a word that may be English, made up, or pieced together."""
    roll = draw.random()
    if roll < 0.35:
        return syllables(draw)
    return pieces(draw) if roll < 0.65 else common(draw)


def proper(draw: Draw) -> str:
    """Return a capitalised word or made-up name."""
    return nonsense(draw).capitalize()


def digits(draw: Draw) -> str:
    """Return a whole number of one to six digits, as text."""
    size = 1 + draw.below(6)
    return str(draw.below(10**size))


def mixed(draw: Draw) -> str:
    """Return an id of letters and digits, such as `kx-204` or `B7Q2`."""
    roll = draw.random()
    word, number = nonsense(draw), draw.below(10 ** (1 + draw.below(4)))
    if roll < 0.3:
        return f"{word}{number}"
    if roll < 0.5:
        return f"{word}-{number}"
    if roll < 0.65:
        return f"{word[:3].upper()}-{number}"
    if roll < 0.8:
        return f"{word}_{number}"
    return "".join(
        draw.choose("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(4 + draw.below(4))
    )


def listed(name: str, random_share: float = 0.45) -> Callable[[Draw], str]:
    """Return a maker of entries of a list, with made-up proper nouns mixed in."""
    options = LISTS[name]
    capital = options[0][0].isupper()

    def make(draw: Draw) -> str:
        if draw.chance(random_share):
            return proper(draw) if capital else nonsense(draw)
        return draw.choose(options)

    return make


name = listed("names")
city = listed("cities")
colour = listed("colours")
food = listed("foods")
job = listed("jobs")
animal = listed("animals")
drink = listed("drinks")
hobby = listed("hobbies")
instrument = listed("instruments")
country = listed("countries")
language = listed("languages")
item = listed("items")


def phrase(draw: Draw) -> str:
    """Return a text of one to seven words, as one would give to a string argument."""
    roll = draw.random()
    if roll < 0.07:
        count = 4 + draw.below(4)
        return " ".join(draw.choose(SMALL) if i % 2 else common(draw) for i in range(count))
    if roll < 0.45:
        return anything(draw)
    if roll < 0.6:
        return f"{proper(draw)} {proper(draw)}"
    if roll < 0.8:
        return f"{draw.choose(NOUNS)} {nonsense(draw)}"
    return f"{nonsense(draw)} {nonsense(draw)} {draw.choose(NOUNS)}"


def anything(draw: Draw) -> str:
    """Return a single word or id of any sort."""
    roll = draw.random()
    if roll < 0.3:
        return proper(draw)
    if roll < 0.6:
        return nonsense(draw)
    if roll < 0.75:
        return mixed(draw)
    return draw.choose(LISTS[draw.choose(("names", "cities", "foods", "colours", "animals"))])


def model(draw: Draw) -> str:
    """Return a model's name: a catalogue tag, a repository, or any name with or without a tag."""
    roll = draw.random()
    if roll < 0.12:
        return draw.choose(
            ("nano", "gemma4:e2b", "gemma4:e4b", "gemma4:12b", "gemma4:26b", "gemma4:31b")
        )
    if roll < 0.2:
        return f"gemma4:{nonsense(draw)}"
    if roll < 0.32:
        return f"hf.co/{nonsense(draw)}/{nonsense(draw)}"
    if roll < 0.5:
        return f"{nonsense(draw)}:{draw.choose(('e2b', 'latest', 'q4', '4b', nonsense(draw)))}"
    if roll < 0.65:
        return mixed(draw)
    return nonsense(draw) if draw.chance(0.85) else proper(draw)


def decimal(draw: Draw) -> float:
    """Return a number with one or two decimals that a repr writes as it was read."""
    return round(draw.below(100000) / draw.choose((10, 100)) / draw.choose((1, 10)), 2) + 0.0


def typed_value(draw: Draw, kind: str) -> Any:
    """Return a value of a JSON type (string, integer, number, boolean) that the split allows."""
    if kind == "boolean":
        return draw.chance(0.5)
    if kind == "integer":
        return int(free(draw, digits))
    if kind == "number":
        return float(free(draw, lambda d: str(decimal(d))))
    return free(draw, phrase)
