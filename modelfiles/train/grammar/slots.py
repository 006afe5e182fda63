"""Says that keys have values, in hundreds of ways and both orders.

Every item is a determiner, a connector and a joiner drawn apart, so that the words around a value
are seldom the same twice.
"""

from collections.abc import Sequence
from typing import Any

from train.grammar.frames import Bank, Draw, bank, pair_is_held
from train.grammar.noise import capital
from train.grammar.values import COMMON

NOUN, CLAUSE, ORDER, TERSE = (bank("slots", name) for name in ("noun", "clause", "order", "terse"))
LEADS, WHERE, TERSE_LEADS = (bank("slots", n) for n in ("leads", "whereleads", "terseleads"))
DETERMINERS = bank("slots", "determiner")
QUOTES = ('"{}"', '"{}"', "'{}'", "`{}`", "“{}”")
CLOSERS = {"(": ")", "[": "]", "{": "}"}
HELD_WORDS = {
    word
    for b in (NOUN, CLAUSE, ORDER, LEADS, WHERE, DETERMINERS)
    for clause in b.held
    for word in clause.key.split("|")[1].split()
}
ODD_WORDS = [word for word in COMMON if word not in HELD_WORDS]
ODD_FRAMES_PLAIN = [f for w in ODD_WORDS for f in (f"{{K}} {w} {{v}}", f"{{v}} {w} {{K}}")]
ODD_ORDERS = [f for w in ODD_WORDS for f in (f"{w} {{K}} {{v}}", f"{w} {{v}} {{K}}")]
ODD_FRAMES = frozenset(ODD_FRAMES_PLAIN + ODD_ORDERS)

Pair = tuple[str, Any]


def shown(draw: Draw, value: Any, quoted: bool = False) -> str:
    """Return a value as it stands in a sentence; text is sometimes quoted, or always on demand."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    gaps = value.count(" ")
    if quoted or gaps > 2 or draw.chance(0.45 if gaps else 0.15):
        return draw.choose(QUOTES).format(value)
    return value


def label(draw: Draw, key: str) -> str:
    """Return the key as people write it: underscores may be spaces."""
    return key.replace("_", " ") if "_" in key and draw.chance(0.6) else key


def item(draw: Draw, pair: Pair, frame: str, clear: bool = False) -> str:
    """Return one key with its value in the connector `frame`.

    With `clear`, nothing else says which of the two is the key, so a key after its value gets an
    article. A text of several words is quoted where no known word divides it from its key.
    """
    text = isinstance(pair[1], str)
    divided = "{K} {v}" not in frame and "{k} {v}" not in frame and frame not in ODD_FRAMES
    key = label(draw, pair[0])
    value = shown(draw, pair[1], quoted=text and " " in pair[1] and not divided)
    if "{K}" in frame:
        late = clear and frame.index("{K}") > frame.index("{v}")
        frame = frame.replace("{K}", "the {k}" if late else draw.pick(DETERMINERS))
    return frame.replace("{k}", key).replace("{v}", value)


def connector(draw: Draw, style: Bank, clear: bool = False) -> str:
    """Return a connector of `style`; now and then one around an arbitrary word."""
    if style is not TERSE and not clear and draw.chance(0.08):
        return draw.choose(ODD_ORDERS if style is ORDER else ODD_FRAMES_PLAIN)
    while True:
        frame = draw.pick(style)
        if not clear or "{K}" in frame or frame.index("{k}") < frame.index("{v}"):
            return frame


def attached(draw: Draw, pairs: Sequence[Pair], clear: bool = False) -> str:
    """Return the pairs as the tail of a request, with the space before it."""
    roll = draw.random()
    if roll < 0.5:
        return _led(draw, LEADS, NOUN, pairs, clear)
    if roll < 0.8:
        return _led(draw, WHERE, CLAUSE, pairs, clear)
    return _terse_tail(draw, pairs, clear)


def sentences(draw: Draw, pairs: Sequence[Pair], clear: bool = False) -> str:
    """Return the pairs as text of their own, full stops included."""
    roll = draw.random()
    if roll < 0.4:
        return _spoken(draw, CLAUSE, pairs, clear)
    if roll < 0.7:
        return _spoken(draw, ORDER, pairs, clear)
    if roll < 0.85:
        frame = connector(draw, TERSE, clear)
        lines = [item(draw, pair, frame, clear) for pair in pairs]
        return draw.choose(("\n", "\n", ", ", "; ", ". ")).join(lines)
    return _start(joined(draw, _items(draw, NOUN, pairs, clear)), pairs) + "."


def joined(draw: Draw, parts: Sequence[str]) -> str:
    """Return the parts as a list in a sentence."""
    if len(parts) == 1:
        return parts[0]
    roll = draw.random()
    if roll < 0.6:
        return f"{', '.join(parts[:-1])} and {parts[-1]}"
    if roll < 0.75:
        return " and ".join(parts)
    return ("; " if roll < 0.8 else ", ").join(parts)


def _items(draw: Draw, style: Bank, pairs: Sequence[Pair], clear: bool) -> list[str]:
    """Return the pairs in words, in one connector or each in its own."""
    if draw.chance(0.6):
        frame = connector(draw, style, clear)
        return [item(draw, pair, frame, clear) for pair in pairs]
    return [item(draw, pair, connector(draw, style, clear), clear) for pair in pairs]


def _led(draw: Draw, leads: Bank, style: Bank, pairs: Sequence[Pair], clear: bool) -> str:
    while True:
        lead = draw.choose(ODD_WORDS) if draw.chance(0.04) else draw.pick(leads)
        frame = connector(draw, style, clear)
        if not pair_is_held(lead, frame) or draw.hold_frames:
            break
    parts = [item(draw, pairs[0], frame, clear)]
    same = draw.chance(0.6)
    for pair in pairs[1:]:
        parts.append(item(draw, pair, frame if same else connector(draw, style, clear), clear))
    text = joined(draw, parts)
    return f"{lead} {text}" if lead[0] in ",;" else f" {lead} {text}"


def _terse_tail(draw: Draw, pairs: Sequence[Pair], clear: bool) -> str:
    lead, frame = draw.pick(TERSE_LEADS), connector(draw, TERSE, clear)
    parts = [item(draw, pair, frame, clear) for pair in pairs]
    if frame[0] in "-*" and frame[1] == " ":
        return ":\n" + "\n".join(parts)
    text = draw.choose((", ", ", ", "; ", " and ")).join(parts)
    if lead in CLOSERS:
        return f" {lead}{text}{CLOSERS[lead]}"
    return f"{lead} {text}" if lead[0] in ":,;" else f" {lead} {text}"


def _spoken(draw: Draw, style: Bank, pairs: Sequence[Pair], clear: bool) -> str:
    parts = _items(draw, style, pairs, clear)
    if draw.chance(0.5):
        return _start(joined(draw, parts), pairs) + "."
    return " ".join(_start(part, pairs) + "." for part in parts)


def _start(text: str, pairs: Sequence[Pair]) -> str:
    """Return the text with a capital, unless it starts with a value, which must stay as it is."""
    if any(text.startswith(str(value)) for _, value in pairs):
        return text
    return capital(text)
