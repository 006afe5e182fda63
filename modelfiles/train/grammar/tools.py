"""Made-up tools: any verb with any noun, up to four parameters, requests in recombined wording."""

from typing import Any

from train.grammar import values
from train.grammar.frames import Draw, bank, retry, sections, words
from train.grammar.howto import gerund
from train.grammar.noise import typed, with_articles
from train.grammar.slots import Pair, attached, sentences
from train.grammar.toolkit import Request, Tool, declared

OPENERS, AROUND, OBJECTS = (bank("tools", n) for n in ("openers", "around", "objects"))
DESCRIPTIONS, ABOUT = bank("tools", "descriptions"), bank("tools", "parameters")
KEYS, ADJECTIVES = words("words", "keys"), words("words", "adjectives")
TYPES = ("string",) * 9 + ("integer",) * 5 + ("number",) * 2 + ("boolean",) * 2 + ("enum",) * 2
VERBS: dict[str, tuple[str, ...]] = {
    line.split(":")[0]: tuple(word.strip() for word in line.split(":")[1].split(","))
    for line in sections("tools")["verbs"]
}
VERB_NAMES = tuple(VERBS)
MEANINGS = {verb: {verb, *synonyms} for verb, synonyms in VERBS.items()}


class Made:
    """A made-up tool: its declaration, its verb and noun in words, and its parameters' types."""

    __slots__ = ("enums", "noun", "parameters", "required", "tool", "verb")

    def __init__(self, draw: Draw, avoid: set[str], near: "Made | None" = None) -> None:
        """Invent a tool whose name is not in `avoid`; names and keys obey the split.

        `near` lends its noun or its verb, so that one word more decides which tool is meant.
        """
        self.verb, self.noun, name = _named(draw, avoid, near)
        count = draw.choose((0, 1, 1, 1, 2, 2, 2, 3, 3, 4))
        self.parameters: dict[str, str] = {}
        self.enums: dict[str, list[str]] = {}
        while len(self.parameters) < count:
            self.parameters.setdefault(_key(draw), draw.choose(TYPES))
        for key, kind in self.parameters.items():
            if kind == "enum":
                size = 2 + draw.below(3)
                self.enums[key] = list({values.free(draw, values.nonsense) for _ in range(size)})
        optional = draw.chance(0.25)
        self.required = [k for k in self.parameters if not (optional and draw.chance(0.5))]
        description = _described(draw, self.verb, self.noun)
        self.tool = declared(name, description, self._properties(draw), self.required)

    def _properties(self, draw: Draw) -> dict[str, Any]:
        described = draw.chance(0.75)
        return {key: self._property(draw, key, described) for key in self.parameters}

    def _property(self, draw: Draw, key: str, described: bool) -> dict[str, Any]:
        kind = self.parameters[key]
        schema: dict[str, Any] = {"type": "string" if kind == "enum" else kind}
        if described:
            label = key.replace("_", " ")
            text = draw.pick(ABOUT).replace("{k}", label).replace("{n}", self.noun)
            schema["description"] = text.replace("{C}", label.capitalize()).replace("{y}", kind)
        if kind == "enum":
            schema["enum"] = self.enums[key]
        return schema

    def arguments(self, draw: Draw) -> dict[str, Any]:
        """Return arguments for a call: all required ones, and half of the others."""
        chosen = [k for k in self.parameters if k in self.required or draw.chance(0.5)]
        return {key: self._value(draw, key) for key in chosen}

    def _value(self, draw: Draw, key: str) -> Any:
        kind = self.parameters[key]
        return draw.choose(self.enums[key]) if kind == "enum" else values.typed_value(draw, kind)

    def spoken(self, draw: Draw) -> str:
        """Return the verb phrase for using the tool: a synonym and the noun."""
        verb = self.verb if draw.chance(0.4) else draw.choose(VERBS.get(self.verb, (self.verb,)))
        return with_articles(f"{verb} {draw.pick(OBJECTS).replace('{n}', self.noun)}")


def request(draw: Draw) -> Request:
    """Return a request for one of one to four made-up tools."""
    names: set[str] = set()
    made = [Made(draw, names)]
    names.add(made[0].tool["function"]["name"])
    for _ in range(draw.choose((0, 0, 0, 1, 1, 2, 3))):
        other = Made(draw, names, made[0] if draw.chance(0.35) else None)
        names.add(other.tool["function"]["name"])
        made.append(other)
    chosen = made[0]
    arguments = chosen.arguments(draw)
    pairs = [(key, _worded(draw, value)) for key, value in arguments.items()]
    if draw.chance(0.4):
        draw.rng.shuffle(pairs)
    user = _asked(draw, chosen.spoken(draw), pairs)
    draw.rng.shuffle(made)
    calls = [(chosen.tool["function"]["name"], arguments)]
    return Request(user, [m.tool for m in made], calls, f"{chosen.verb} the {chosen.noun}")


def distractors(draw: Draw, count: int, avoid: set[str]) -> list[Tool]:
    """Return `count` made-up tools that nobody asks for."""
    return [Made(draw, avoid).tool for _ in range(count)]


def _asked(draw: Draw, phrase: str, pairs: list[Pair]) -> str:
    if pairs and draw.chance(0.35):
        frame = typed(draw, draw.pick(AROUND)).replace("\\n", "\n")
        told = sentences(draw, pairs)
        if "{t} " in frame and told[-1] != ".":
            told += "\n" if "\n" in told else "."
        return frame.replace("{do}", phrase).replace("{t}", told).replace("\n ", "\n")
    frame = typed(draw, draw.pick(OPENERS)).replace("{doing}", gerund(phrase))
    return frame.replace("{do}", phrase).replace("{s}", attached(draw, pairs) if pairs else "")


def _worded(draw: Draw, value: Any) -> Any:
    if isinstance(value, bool) and draw.chance(0.25):
        return draw.choose(("yes", "on") if value else ("no", "off"))
    return value


def _named(draw: Draw, avoid: set[str], near: Made | None) -> tuple[str, str, str]:
    lends_noun = draw.chance(0.6)

    def make() -> tuple[str, str, str]:
        verb, noun = draw.choose(VERB_NAMES), _noun(draw)
        if near and lends_noun:
            noun = near.noun
        elif near:
            verb = near.verb
        return verb, noun, _joined_name(draw, verb, noun.replace(" ", "_"))

    def accept(made: tuple[str, str, str]) -> bool:
        verb, noun, name = made
        if near and (noun == near.noun) and not MEANINGS[verb].isdisjoint(MEANINGS[near.verb]):
            return False
        return values.held(name) == draw.hold_values and name not in avoid

    return retry(make, accept)


def _joined_name(draw: Draw, verb: str, noun: str) -> str:
    roll = draw.random()
    if roll < 0.8:
        return f"{verb}_{noun}"
    if roll < 0.88:
        return f"{noun}_{verb}"
    if roll < 0.94:
        return verb + noun.title().replace("_", "")
    return values.nonsense(draw)


def _noun(draw: Draw) -> str:
    roll = draw.random()
    noun = draw.choose(values.NOUNS) if roll < 0.7 else values.nonsense(draw)
    return f"{draw.choose(ADJECTIVES)} {noun}" if draw.chance(0.12) else noun


def _key(draw: Draw) -> str:
    def make(draw: Draw) -> str:
        roll = draw.random()
        if roll < 0.5:
            return draw.choose(KEYS)
        if roll < 0.6:
            return draw.choose(values.NOUNS)
        if roll < 0.75:
            return f"{draw.choose(ADJECTIVES)}_{draw.choose(KEYS)}"
        if roll < 0.85:
            return f"{draw.choose(KEYS)}_{draw.choose(values.NOUNS)}"
        return values.nonsense(draw)

    return values.free(draw, make)


def _described(draw: Draw, verb: str, noun: str) -> str:
    spoken = verb if draw.chance(0.7) else draw.choose(VERBS[verb])
    frame = draw.pick(DESCRIPTIONS)
    if "{B}s" in frame and (" " in spoken or spoken[-1] in "shxy"):
        frame = frame.replace("{B}s", "{B}")
    text = frame.replace("{B}", spoken.capitalize()).replace("{b}", spoken)
    return with_articles(text.replace("{n}", noun))
