"""Questions about this program's commands and settings, and their answers.

A question is an opener, a verb phrase, a way of naming the model and a tail, each drawn apart.
"""

import re
from typing import NamedTuple

from train.grammar import values
from train.grammar.frames import Bank, Draw, bank, pair_is_held, sections
from train.grammar.noise import typed

OPENERS, TAILS = bank("howto", "openers"), bank("howto", "tails")
NAMES, GENERIC = bank("howto", "names"), bank("howto", "generic")
COMMANDS = tuple(sections("howto")["commands"])
PROMPTS = bank("chat", "prompts")
DURATIONS = ("s", "m", "h", "m", "m")


class Entry(NamedTuple):
    """A thing one can ask for: the command, what to add, and the wish in plain words."""

    name: str
    command: str
    advice: str
    wish: str
    lead: str = "Run"


class Question(NamedTuple):
    """A question with its answer, the thought before it, the command that the answer must hold
    and the model it names, if it names one."""

    user: str
    answer: str
    thought: str
    command: str
    model: str


ENTRIES = (
    Entry("pull", "gemma pull {m}", "It downloads the target and its drafter.", "download {m}"),
    Entry("run", "gemma run {m}", "Type `/bye` to leave the chat.", "chat with {m}"),
    Entry("prompt", 'gemma run {m} "{p}"', "It prints the answer and exits.", "ask {m} once"),
    Entry("list", "gemma list", "It shows every model in the store.", "list the models"),
    Entry("ps", "gemma ps", "It shows the models in memory.", "see what is loaded"),
    Entry("show", "gemma show {m}", "It prints the details and the drafter.", "inspect {m}"),
    Entry("stop", "gemma stop {m}", "Its memory is freed at once.", "unload {m}"),
    Entry("rm", "gemma rm {m}", "The files leave the disk.", "delete {m}"),
    Entry("cp", "gemma cp {m} {b}", "The copy takes no extra space.", "copy {m} to {b}"),
    Entry("bench", "gemma bench {m}", "It compares drafting on and off.", "measure {m}"),
    Entry("serve", "gemma serve", "Stop it with Ctrl+C.", "start the daemon"),
    Entry("version", "gemma --version", "It prints one line.", "see the version"),
    Entry("help", "gemma --help", "It lists every command.", "see the commands"),
    Entry("verbose", "gemma run {m} --verbose", "Rates follow each answer.", "see rates of {m}"),
    Entry("jsonlist", "gemma list --json", "Scripts can read it.", "list the models as JSON"),
    Entry("jsonps", "gemma ps --json", "Scripts can read it.", "list loaded models as JSON"),
    Entry("jsonbench", "gemma bench {m} --json", "Scripts can read it.", "measure {m} as JSON"),
    Entry("draftoff", "gemma run {m} --draft off", "The words stay the same.", "run {m} undrafted"),
    Entry("draftn", "gemma run {m} --draft {d}", "Each round drafts {d}.", "draft {d} with {m}"),
    Entry(
        "draftauto", "gemma run {m} --draft auto", "That is the default.", "draft on auto with {m}"
    ),
    Entry("think", "gemma run {m} --think", "The thoughts come first.", "let {m} think"),
    Entry("keepalive", "gemma run {m} --keepalive {t}", "Then it unloads.", "keep {m} for {t}"),
    Entry("replhelp", "/help", "It works inside a chat.", "see the chat commands", "Type"),
    Entry("replset", "/set", "Add a name and a value.", "change a setting in a chat", "Type"),
    Entry("replshow", "/show", "It works inside a chat.", "see the chat's settings", "Type"),
    Entry("bye", "/bye", "The chat then ends.", "leave the chat", "Type"),
    Entry("home", "GEMMA_HOME", "Then restart the daemon.", "move the store", "Set"),
    Entry("socket", "GEMMA_SOCKET", "Then restart the daemon.", "change the socket", "Set"),
    Entry("host", "GEMMA_HOST", "The default port is 11435.", "change the address", "Set"),
    Entry("draftset", "gemma draft set {m} {b}", "The pair is checked first.", "pair {m} with {b}"),
    Entry("draftrm", "gemma draft rm {m}", "The target still works.", "detach the drafter of {m}"),
    Entry("verify", "gemma verify", "It checks every file in the store.", "check the files"),
    Entry("gc", "gemma gc", "It removes files no model uses.", "clean the store"),
    Entry("cmdhelp", "{c} --help", "It lists the options.", "see the options of {c}"),
    Entry("reqdraft", "draft", "It takes off, auto or a depth.", "set drafting per request", "Set"),
)
COMMON_ENTRIES = [e for e in ENTRIES if e.name in sections("howto")["frequent"]]
ABOUT_A_MODEL = [e for e in ENTRIES if "{m}" in e.command and e.command.count("{") == 1]
PHRASES: dict[str, Bank] = {e.name: bank("howto", e.name) for e in ENTRIES}
BARE: dict[str, Bank] = {
    name.removesuffix(".bare"): bank("howto", name)
    for name in sections("howto")
    if name.endswith(".bare")
}
# Where the rest of a phrase tells what is meant, any verb may stand before it.
CUES = re.compile(
    r"(from|out of) memory|(from|off) (disk|my|the store|this)|from the (hub|internet|web|network)|"
    r"(details|metadata|licence|parameters|properties) of|thinking|reasoning|thoughts|JSON|socket|"
    r"port|address|slash commands|settings|(speed|benchmark|performance) of|for {t}|version|"
    r"unused|leftover|corrupt|damaged|checksums|(another|second|different) (disk|folder|drive)"
)
TAKEN = {
    word.lower()
    for b in (OPENERS, *PHRASES.values(), *BARE.values())
    for clause in (*b.seen, *b.held)
    for word in re.findall(r"[a-z]+", clause.key.partition("|")[2])
}
ODD_WORDS = [word for word in values.COMMON if word not in TAKEN]
DOUBLED = {"get", "put", "run", "stop", "set", "cut", "drop", "rid", "begin", "let", "quit", "shut"}
DOUBLED |= {
    "scrap",
    "bin",
    "split",
    "swap",
    "unset",
    "log",
    "wrap",
    "scan",
    "skip",
    "chat",
    "forbid",
    "control",
    "transfer",
}


def question(draw: Draw) -> Question:
    """Return a question about a command or setting, answered."""
    entry = draw.choose(COMMON_ENTRIES if draw.chance(0.3) else ENTRIES)
    bare = draw.chance(0.3 if entry.name not in BARE else 0.2)
    slots = _generic_slots(entry) if bare else _named_slots(draw, entry)
    user = _worded(draw, entry, slots, bare)
    command = _filled(entry.command, slots)
    answer, thought = _answer(draw, entry, command, slots), _thought(entry, command, slots)
    named = "{m}" in entry.command and not bare
    return Question(user, answer, thought, command, slots["m"] if named else "")


def follow_up(draw: Draw, model: str) -> Question:
    """Return a next question about the same model, which is now only called `it`."""
    entry = draw.choose(ABOUT_A_MODEL)
    frame = draw.pick(OPENERS)
    phrase = draw.pick(PHRASES[entry.name]).replace("{m}", "it")
    frame = frame.replace("{doing}", gerund(phrase)).replace("{do}", phrase)
    slots = {"m": model}
    command = _filled(entry.command, slots)
    user = draw.choose(("and ", "and then, ", "next, ", "")) + typed(draw, frame)
    answer, thought = _answer(draw, entry, command, slots), _thought(entry, command, slots)
    return Question(user, answer, f"It is {model}. {thought}", command, model)


def gerund(phrase: str) -> str:
    """Return the verb phrase with its first verb as a gerund: `get it` becomes `getting it`."""
    verb, _, rest = phrase.partition(" ")
    if verb == "permanently":
        return f"{verb} {gerund(rest)}"
    if verb in ("rm", "cp"):
        return phrase
    if verb in DOUBLED:
        verb += verb[-1]
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye", "be")):
        verb = verb[:-1]
    return f"{verb}ing {rest}" if rest else f"{verb}ing"


def _named_slots(draw: Draw, entry: Entry) -> dict[str, str]:
    slots = {"m": values.free(draw, values.model)}
    command = entry.command
    if "{b}" in command:
        slots["b"] = values.free(draw, values.model)
    if "{p}" in command:
        slots["p"] = draw.pick(PROMPTS)
    if "{d}" in command:
        slots["d"] = str(1 + draw.below(8))
    if "{t}" in command:
        slots["t"] = f"{1 + draw.below(60)}{draw.choose(DURATIONS)}"
    if "{c}" in command:
        slots["c"] = "gemma " + draw.choose(COMMANDS)
    return slots


def _generic_slots(entry: Entry) -> dict[str, str]:
    slots = {"m": "MODEL", "b": "COPY", "p": "PROMPT", "d": "N", "t": "10m", "c": "gemma COMMAND"}
    if entry.name == "draftset":
        slots["b"] = "DRAFTER"
    return slots


def _worded(draw: Draw, entry: Entry, slots: dict[str, str], bare: bool) -> str:
    phrase_bank = BARE.get(entry.name, PHRASES[entry.name]) if bare else PHRASES[entry.name]
    while True:
        opener, phrase = _opener(draw), draw.pick(phrase_bank)
        if draw.hold_frames or not pair_is_held(opener, phrase):
            break
    if draw.chance(0.06) and CUES.search(phrase) and not entry.name.startswith("draft"):
        phrase = f"{draw.choose(ODD_WORDS)} {phrase.partition(' ')[2]}"
    if draw.chance(0.2) and "{p}" not in phrase:
        phrase = f"{phrase} {draw.pick(TAILS)}"
    frame = opener.replace("{doing}", gerund(phrase)).replace("{do}", phrase)
    frame = typed(draw, frame)
    if bare:
        named = draw.pick(GENERIC)
        return frame.replace("{m}", named).replace("{c}", "a command").replace("{b}", "another one")
    named = draw.pick(NAMES).replace("{n}", slots["m"])
    frame = frame.replace("{m}", named)
    return _filled(frame, slots)


def _opener(draw: Draw) -> str:
    """Return an opener; now and then any two words, so that unknown openers do no harm."""
    if not draw.hold_frames and draw.chance(0.04):
        ending = draw.choose(("{do}?", "{do}.", "{do}", "{doing}?", "to {do}?"))
        return f"{draw.choose(ODD_WORDS)} {draw.choose(ODD_WORDS)} {ending}"
    return draw.pick(OPENERS)


def _filled(frame: str, slots: dict[str, str]) -> str:
    for key, value in slots.items():
        frame = frame.replace("{" + key + "}", value)
    return frame


def _answer(draw: Draw, entry: Entry, command: str, slots: dict[str, str]) -> str:
    lead = entry.lead
    if lead == "Run" and draw.chance(0.08):
        lead = "Use"
    return f"{lead} `{command}`. {_filled(entry.advice, slots)}"


def _thought(entry: Entry, command: str, slots: dict[str, str]) -> str:
    kind = {"Run": "command", "Type": "chat command", "Set": "setting"}[entry.lead]
    return f"The user wants to {_filled(entry.wish, slots)}. The {kind} is `{command}`."
