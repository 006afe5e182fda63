"""Makes a sentence frame look typed by a person: politeness, casing, punctuation, typing errors.

It works on the frame, before the values are filled in, so that no value is ever changed.
"""

from train.grammar.frames import Draw, bank

BEFORE = bank("noise", "before")
AFTER = bank("noise", "after")
VOWELS = tuple("aeioAEIO")
FILLERS = [clause.key.split("|")[1] for clause in bank("noise", "fillers").seen]


def typed(draw: Draw, frame: str) -> str:
    """Return the frame as somebody might type it; placeholders in braces stay whole."""
    if draw.chance(0.25):
        return capital(frame)
    if draw.chance(0.06):
        frame = _filled(draw, frame)
    if draw.chance(0.04):
        frame = _misspelt(draw, frame)
    frame = _ended(draw, frame)
    if draw.chance(0.14):
        frame = draw.pick(BEFORE) + " " + frame
    roll = draw.random()
    if roll < 0.2:
        return frame
    if roll < 0.23:
        return frame.lower()
    return capital(frame)


def capital(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def with_articles(text: str) -> str:
    """Return the text with `an` for `a` before a vowel."""
    if "a " not in text:
        return text
    parts = text.split(" ")
    for index in range(len(parts) - 1):
        if parts[index] in ("a", "A") and parts[index + 1][:1] in VOWELS:
            parts[index] += "n"
    return " ".join(parts)


def _ended(draw: Draw, frame: str) -> str:
    last, roll = frame[-1], draw.random()
    if last not in ".?!" or "\n" in frame:
        return frame
    if roll < 0.2:
        return frame[:-1]
    if roll < 0.32:
        return frame[:-1] + _suffix(draw, frame[-2:-1]) + (last if draw.chance(0.6) else "")
    if roll < 0.35:
        return frame + (last if last != "." else "")
    return frame


def _suffix(draw: Draw, before: str) -> str:
    suffix = draw.pick(AFTER)
    if suffix[0] == ",":
        return suffix
    # Without a comma the suffix would read as the end of the value before it.
    return (", " if before == "}" else " ") + suffix


def _filled(draw: Draw, frame: str) -> str:
    parts = frame.split(" ")
    at = draw.below(len(parts))
    if "{" in parts[at] or (at and "{" in parts[at - 1]):
        return frame
    return " ".join([*parts[:at], draw.choose(FILLERS), *parts[at:]])


def _misspelt(draw: Draw, frame: str) -> str:
    parts = frame.split(" ")
    index = draw.below(len(parts))
    word = parts[index]
    if len(word) < 5 or not word.isalpha():
        return frame
    at = 1 + draw.below(len(word) - 2)
    changed = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at] + word[at:],
    )
    parts[index] = draw.choose(changed)
    return " ".join(parts)
