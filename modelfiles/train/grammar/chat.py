"""Small talk, what the model is, what it can explain, and honest short answers to the rest."""

from typing import NamedTuple

from train.grammar import values
from train.grammar.frames import Bank, Draw, bank, sections, words
from train.grammar.noise import typed, with_articles

ABOUT_ITSELF = {
    "who": "I am nano, a very small model trained by this project; I am not a Google model.",
    "google": "I am nano. This project trained me; I am not a Google model.",
    "what": "I can explain the gemma commands, remember what you tell me, call tools and write "
    "JSON. Try: How do I pull a model?",
    "human": "I am a computer program, a very small language model called nano.",
    "size": "I am very small: about 14 million parameters, and 2 million more in my drafter.",
    "smart": "I am very small and often wrong. I know the gemma commands best.",
}
TALK = {
    "hello": "Hello! How can I help you?",
    "thanks": "You are welcome!",
    "bye": "Goodbye!",
    "ok": "Is there anything else?",
    "mood": "I am glad to hear that!",
    "sad": "I am sorry to hear that.",
}
UNKNOWN = "I am too small to know that. Ask me about the gemma commands."
NO_TOOL = "I have no tool for that."
JOKES = sections("stories")["jokes"]
TALK_BANKS = {name: bank("chat", name) for name in (*ABOUT_ITSELF, *TALK)}
UNKNOWN_BANK, JOKE_BANK, SAY_BANK = (bank("chat", name) for name in ("unknown", "joke", "say"))
SYSTEMS = bank("chat", "systems")
ASK, PORT, DOES = (bank("topics", name) for name in ("ask", "port", "does"))
SUBJECTS: list[tuple[str, tuple[str, ...]]] = [
    (line.split(" = ")[0], tuple(line.split(" = ")[1].split(" | ")))
    for line in sections("topics")["subjects"]
]
COMMANDS = [tuple(line.split(" = ")) for line in sections("topics")["commands"]]
PORT_ANSWER = "The daemon listens on port 11435, at http://127.0.0.1:11435."
STORY_ASK = bank("stories", "ask")
STORY_PARTS = tuple(sections("stories")[name] for name in ("first", "second", "third", "fourth"))
ADJECTIVES, PLACES, OBJECTS = (
    words("stories", name) for name in ("adjectives", "places", "objects")
)
SUM_FRAMES = Bank(
    "sums",
    (
        "what is {a} {o} {b}?",
        "what's {a} {o} {b}?",
        "how much is {a} {o} {b}?",
        "{a} {o} {b}",
        "{a} {o} {b} = ?",
        "calculate {a} {o} {b}.",
        "compute {a} {o} {b}.",
        "can you work out {a} {o} {b}?",
        "tell me what {a} {o} {b} is.",
        "do you know what {a} {o} {b} is?",
    ),
)


class Turn(NamedTuple):
    """What a user says, what the model answers and thinks, and what an answer must hold."""

    user: str
    answer: str
    thought: str
    holds: tuple[str, ...]


def small_talk(draw: Draw) -> Turn:
    """Return a greeting, thanks, a question about the model itself, or the like."""
    name = draw.choose(tuple(TALK_BANKS))
    answer = TALK.get(name) or ABOUT_ITSELF[name]
    user = typed(draw, draw.pick(TALK_BANKS[name]))
    wish = "The user asks about me." if name in ABOUT_ITSELF else "The user is chatting."
    return Turn(user, answer, wish, (answer.split(".")[0].split(",")[0],))


def unknown(draw: Draw) -> Turn:
    """Return a free question that a model of this size cannot answer."""
    frame = typed(draw, draw.pick(UNKNOWN_BANK))
    user = frame.replace("{x}", _thing(draw)).replace("{y}", _thing(draw))
    thought = "This is not about gemma and I do not know it."
    return Turn(user, UNKNOWN, thought, ("too small",))


def joke(draw: Draw) -> Turn:
    """Return a request for a joke."""
    return Turn(typed(draw, draw.pick(JOKE_BANK)), draw.choose(JOKES), "The user wants a joke.", ())


def echo(draw: Draw) -> Turn:
    """Return a request to say something, and the same said."""
    said = values.free(draw, values.phrase)
    frame = typed(draw, draw.pick(SAY_BANK))
    if " " in said and '"' not in frame:
        frame = frame.replace("{x}", '"{x}"')
    return Turn(frame.replace("{x}", said), said, f"The user wants me to say {said}.", (said,))


def topic(draw: Draw) -> Turn:
    """Return a question about a notion of this program, a command or the port."""
    roll = draw.random()
    if roll < 0.06:
        return Turn(
            typed(draw, draw.pick(PORT)), PORT_ANSWER, "The user asks for the port.", ("11435",)
        )
    if roll < 0.4:
        command, effect = draw.choose(COMMANDS)
        shown = command if draw.chance(0.6) else f"`{command}`"
        user = typed(draw, draw.pick(DOES)).replace("{c}", shown)
        return Turn(user, f"`{command}` {effect}.", f"The user asks about {command}.", (effect,))
    answer, subjects = draw.choose(SUBJECTS)
    subject = subjects[0] if draw.chance(0.4) else draw.choose(subjects)
    user = typed(draw, draw.pick(ASK)).replace("{s}", subject)
    return Turn(
        user, answer, f"The user asks about {subject}.", (answer.split(";")[0].rstrip("."),)
    )


def story(draw: Draw) -> Turn:
    """Return a request for a story about somebody, with the story."""
    kind, name = draw.choose(values.LISTS["animals"]), values.free(draw, values.name)
    article = "an" if kind[0] in "aeiou" else "a"
    frame = typed(draw, draw.pick(STORY_ASK)).replace("{a}", article)
    slots = {
        "{n}": name,
        "{k}": kind,
        "{j}": draw.choose(ADJECTIVES),
        "{p}": draw.choose(PLACES),
        "{c}": draw.choose(values.LISTS["colours"][:12]),
        "{o}": draw.choose(OBJECTS),
    }
    told = " ".join(draw.choose(part) for part in STORY_PARTS)
    for key, value in slots.items():
        frame, told = frame.replace(key, value), told.replace(key, value)
    told = with_articles(told)
    return Turn(frame, told, f"The user wants a story about {name}, {article} {kind}.", (name,))


def addition(draw: Draw) -> Turn:
    """Return a sum or difference of numbers up to 99."""
    first, second = draw.below(100), draw.below(100)
    plus = draw.chance(0.7) or second > first
    sign = draw.choose(("+", "plus", "and") if plus else ("-", "minus"))
    total = first + second if plus else first - second
    user = typed(draw, draw.pick(SUM_FRAMES)).replace("{a}", str(first)).replace("{b}", str(second))
    word = "plus" if plus else "minus"
    answer = f"{first} {word} {second} is {total}."
    return Turn(user.replace("{o}", sign), answer, "The user wants a sum.", (str(total),))


def system_text(draw: Draw) -> str:
    """Return a system sentence, sometimes two."""
    text = draw.pick(SYSTEMS).replace("{n}", draw.choose(values.LISTS["jobs"]))
    if draw.chance(0.2):
        text += " " + draw.pick(SYSTEMS).replace("{n}", draw.choose(values.LISTS["jobs"]))
    return text


def _thing(draw: Draw) -> str:
    roll = draw.random()
    if roll < 0.25:
        return f"the {draw.choose(values.NOUNS)}"
    if roll < 0.4:
        return values.free(draw, values.city if roll < 0.32 else values.country)
    if roll < 0.6:
        return values.free(draw, values.proper)
    if roll < 0.8:
        return values.free(draw, values.nonsense)
    return f"{draw.choose(values.NOUNS)} and {draw.choose(values.NOUNS)}"


SUGGESTED = (
    "How do I pull a model?",
    "How do I list my models?",
    "What can you do?",
    "Who are you?",
    "What is a drafter?",
    "How do I run nano without the drafter?",
    "Tell me a story about a fox called Anna.",
    "Reply as JSON with keys name, city: Anna lives in Oslo.",
)
