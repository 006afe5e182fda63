"""Puts the skills together: whole conversations of one to six turns, in the training mixture."""

from random import Random
from typing import Any

from train.conversation import Conversation, Dialogue
from train.grammar import chat, howto, jsonreply, recall, services, toolkit, tools
from train.grammar.frames import Draw
from train.render import render

TURNS = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6)
CLASHING = ({"word", "number"}, {"hobby", "colour", "food", "any"})

Message = dict[str, Any]


class Script:
    """A conversation being written: its messages, the tools declared and the facts told."""

    def __init__(self, draw: Draw, think: bool) -> None:
        """Start without any message."""
        self.draw = draw
        self.think = think
        self.messages: list[Message] = []
        self.tools: list[dict[str, Any]] = []
        self.facts: list[recall.Fact] = []
        self.requests: list[toolkit.Request] = []
        self.system = ""

    def say(self, user: str, answer: str, thought: str) -> None:
        """Add a user's message and the model's answer."""
        self.ask(user)
        self.answer(answer, thought)

    def ask(self, user: str) -> None:
        """Add a user's message."""
        self.messages.append({"role": "user", "content": user.strip()})

    def answer(self, text: str, thought: str) -> None:
        """Add the model's answer."""
        self.messages.append({"role": "assistant", "content": text})
        self.think_first(thought)

    def think_first(self, thought: str) -> None:
        """Give the last message its thought, if this is a thinking conversation."""
        if self.think:
            self.messages[-1]["reasoning"] = thought

    def dialogue(self) -> Dialogue:
        """Return the finished conversation."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return Dialogue(system + self.messages, self.tools, self.think)


def sample(rng: Random) -> Conversation:
    """Return a conversation of the training distribution; nothing held out is in it."""
    return render(dialogue(rng))


def dialogue(rng: Random) -> Dialogue:
    """Return a conversation of the training distribution before rendering."""
    script = opened(Draw(rng), rng.random() < 0.3, rng.random() < 0.4)
    for _ in range(script.draw.choose(TURNS)):
        turn(script)
    return script.dialogue()


def opened(draw: Draw, think: bool, with_tools: bool) -> Script:
    """Return a script with its system sentence and tools, before the first turn."""
    script = Script(draw, think)
    if draw.chance(0.4):
        script.system = chat.system_text(draw)
        if draw.chance(0.15):
            known = recall.fact(draw)
            script.facts.append(known)
            script.system += " " + recall.stated_in_system(draw, known)
    if with_tools:
        declare(script)
    return script


def declare(script: Script) -> None:
    """Declare one to five tools and prepare the requests they can serve."""
    draw = script.draw
    service = draw.choose(services.SERVICES)
    own = services.request(draw, service) if draw.chance(0.4) else tools.request(draw)
    script.requests.append(own)
    offered = list(own.tools)
    for _ in range(draw.choose((0, 0, 1, 2)) if len(offered) < 3 else 0):
        other = draw.choose(services.SERVICES)
        if draw.chance(0.5):
            offered += tools.distractors(draw, 1, {t["function"]["name"] for t in offered})
        elif services.apart(service, other) and len(script.requests) == 1:
            script.requests.append(services.request(draw, other))
            offered += script.requests[-1].tools
    if len({t["function"]["name"] for t in offered}) < len(offered):
        offered, script.requests = list(own.tools), [own]
    draw.rng.shuffle(offered)
    draw.rng.shuffle(script.requests)
    script.tools = offered


def turn(script: Script) -> None:
    """Add one turn of any skill."""
    draw = script.draw
    if script.requests and draw.chance(0.62):
        tool_turn(script)
        return
    roll = draw.random()
    if roll < 0.26:
        howto_turn(script)
    elif roll < 0.5:
        recall_turn(script)
    elif roll < 0.8:
        json_turn(script)
    else:
        chat_turn(script)


def tool_turn(script: Script) -> list[toolkit.Result]:
    """Add a request, the calls, their results and the model's report of them."""
    request = script.requests.pop(0)
    script.ask(request.user)
    script.messages.append(toolkit.message(request.calls))
    script.think_first(toolkit.thought(request))
    results = [toolkit.result(script.draw) for _ in request.calls]
    for (name, _), result in zip(request.calls, results, strict=True):
        script.messages.append({"role": "tool", "name": name, "content": result.content})
    told = toolkit.answer(results)
    script.answer(told, f"The tool has answered. {told}")
    return results


def howto_turn(script: Script) -> None:
    """Add a how-to question, sometimes with a second one about the same model."""
    asked = howto.question(script.draw)
    script.say(asked.user, asked.answer, asked.thought)
    if asked.model and script.draw.chance(0.1):
        asked = howto.follow_up(script.draw, asked.model)
        script.say(asked.user, asked.answer, asked.thought)


def recall_turn(script: Script) -> None:
    """Let the user state a fact, correct it, or ask for one, told or untold."""
    draw = script.draw
    if script.facts and draw.chance(0.65):
        if draw.chance(0.08):
            correct(script)
        ask_for(script, draw.choose(script.facts))
        return
    known, other = recall.fact(draw), recall.fact(draw)
    if any(_clash(known, told) for told in script.facts):
        chat_turn(script)
    elif draw.chance(0.1):
        thought = recall.thought(known, told=False)
        script.say(recall.question(draw, known), recall.unknown(known), thought)
    elif draw.chance(0.1):
        script.facts.append(known)
        user = f"{recall.statement(draw, known)} {recall.question(draw, known)}"
        script.say(user, recall.answer(known), recall.thought(known))
    else:
        both = draw.chance(0.15) and not any(_clash(other, t) for t in [known, *script.facts])
        state(script, *([known, other] if both else [known]))
        if draw.chance(0.6):
            if draw.chance(0.3):
                chat_turn(script)
            ask_for(script, draw.choose(script.facts))


def ask_for(script: Script, known: recall.Fact) -> None:
    """Let the user ask for a fact told before."""
    question = recall.question(script.draw, known)
    script.say(question, recall.answer(known), recall.thought(known))


def correct(script: Script) -> None:
    """Let the user replace a fact told before."""
    index = script.draw.below(len(script.facts))
    script.facts[index] = known = recall.changed(script.draw, script.facts[index])
    user = recall.correction(script.draw, known)
    script.say(user, "Noted.", f"The user tells me {known.value}. I note it.")


def state(script: Script, *known: recall.Fact) -> None:
    """Let the user state facts in one message."""
    draw = script.draw
    user = ". ".join(recall.statement(draw, fact).rstrip(".") for fact in known)
    answer = recall.acknowledgement(draw, known[0])
    script.say(user, answer, f"The user tells me {known[0].value}. I note it.")
    script.facts += known


def json_turn(script: Script) -> None:
    """Add a request for JSON."""
    reply = jsonreply.request(script.draw)
    script.say(reply.user, jsonreply.text(reply.value), reply.thought)


def chat_turn(script: Script) -> None:
    """Add small talk, an explanation, a story, a sum or an honest `I do not know`."""
    draw = script.draw
    roll = draw.random()
    if roll < 0.34:
        made = chat.topic(draw)
    elif roll < 0.6:
        made = chat.small_talk(draw)
    elif roll < 0.74:
        made = chat.unknown(draw)
    elif roll < 0.84:
        made = chat.story(draw)
    elif roll < 0.92:
        made = chat.addition(draw)
    else:
        made = chat.echo(draw) if roll < 0.98 else chat.joke(draw)
    script.say(made.user, made.answer, made.thought)


def _clash(known: recall.Fact, other: recall.Fact) -> bool:
    names = {known.kind.name, other.kind.name}
    if known.label == other.label or known.label in other.label or other.label in known.label:
        return True
    return any(len(names & group) == 2 for group in CLASHING)
