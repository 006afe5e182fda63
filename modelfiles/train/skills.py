"""What nano is measured on: questions by skill and split, and the judges of its answers.

Splits: `seen` draws from the training distribution; `values` holds out every value, key and tool
name that has to be copied; `frames` also puts at least one held-out clause into the question.
"""

import json
import re
from random import Random
from typing import Any

from train.conversation import Dialogue, Item, Verdict
from train.grammar import chat, howto, jsonreply, mix, recall, services, toolkit, tools
from train.grammar.frames import Draw
from train.render import call, prompt

SKILLS = ("howto", "recall", "tool", "tool_answer", "json", "think", "chat", "story")
SPLITS = ("seen", "values", "frames")
SUGGESTED = chat.SUGGESTED
MIXED = ("howto", "recall", "json", "tool")
STOPS = ("<turn|>", "<|tool_response>", "<eos>")


def items(skill: str, split: str, count: int, seed: int) -> list[Item]:
    """Return `count` questions; the same arguments always give the same questions."""
    return [_item(skill, split, index, seed) for index in range(count)]


def _item(skill: str, split: str, index: int, seed: int) -> Item:
    inner = MIXED[index // 2 % len(MIXED)] if skill == "think" else skill
    for attempt in range(1000):
        rng = Random(f"{skill}/{split}/{seed}/{index}/{attempt}")
        think = index % 2 == 0 if skill == "think" else rng.random() < 0.3
        draw = Draw(rng, split != "seen", 0.3 if split == "frames" else 0.0)
        script = _context(rng, think)
        expected = ASK[inner](script, draw)
        if split != "frames" or draw.held:
            return Item(skill, prompt(script.dialogue()), {"skill": inner, **expected}, think)
    raise AssertionError(f"no {split} question of {skill} has a held-out clause")


def _context(rng: Random, think: bool) -> mix.Script:
    """Return a conversation so far, none to two turns long, of the training distribution."""
    script = mix.opened(Draw(rng), think, rng.random() < 0.3)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        mix.turn(script)
    script.requests.clear()
    return script


def _howto(script: mix.Script, draw: Draw) -> dict[str, Any]:
    question = howto.question(draw)
    script.ask(question.user)
    return {"command": question.command}


def _recall(script: mix.Script, draw: Draw) -> dict[str, Any]:
    script.draw, script.facts = draw, []
    script.messages.clear()
    script.system = ""
    known = recall.fact(draw)
    mix.state(script, known)
    script.draw = Draw(draw.rng)
    for _ in range(draw.choose((0, 0, 1, 1, 2, 3))):
        mix.chat_turn(script)
    script.ask(recall.question(draw, known))
    return {"value": known.value}


def _tool(script: mix.Script, draw: Draw) -> dict[str, Any]:
    request = _request(script, draw)
    script.ask(request.user)
    return {"calls": "".join(call(name, arguments) for name, arguments in request.calls)}


def _request(script: mix.Script, draw: Draw) -> toolkit.Request:
    """Return a request whose tools stand first in a fresh conversation."""
    request = services.request(draw) if draw.chance(0.25) else tools.request(draw)
    script.messages.clear()
    script.tools = list(request.tools)
    return request


def _tool_answer(script: mix.Script, draw: Draw) -> dict[str, Any]:
    script.requests = [_request(script, draw)]
    script.draw = draw
    results = mix.tool_turn(script)
    script.messages.pop()
    return {"values": toolkit.facts(results)}


def _json(script: mix.Script, draw: Draw) -> dict[str, Any]:
    reply = jsonreply.request(draw)
    script.ask(reply.user)
    return {"json": reply.value}


def _chat(script: mix.Script, draw: Draw) -> dict[str, Any]:
    made = draw.choose((chat.small_talk, chat.topic, chat.unknown))(draw)
    script.ask(made.user)
    return {"holds": list(made.holds)}


def _story(script: mix.Script, draw: Draw) -> dict[str, Any]:
    made = chat.story(draw)
    script.ask(made.user)
    return {"holds": list(made.holds)}


ASK = {
    "howto": _howto,
    "recall": _recall,
    "tool": _tool,
    "tool_answer": _tool_answer,
    "json": _json,
    "chat": _chat,
    "story": _story,
}


def judge(item: Item, answer: str) -> Verdict:
    """Return whether the answer (special tokens included) is right, well formed and finished.

    Right means: the command in backticks; the value as a whole word; the calls' text equal, down
    to the stop at `<|tool_response>`; parsed JSON equal, types included. More may be said around
    a command or a value.
    """
    stop = next((s for s in STOPS if answer.endswith(s)), "")
    well_formed, body = _without_thought(item, answer[: len(answer) - len(stop)])
    return Verdict(_right(item.expected, body.strip(), stop), well_formed, bool(stop))


def _without_thought(item: Item, answer: str) -> tuple[bool, str]:
    opened = item.prompt.endswith("<|channel>thought\n")
    text = "<|channel>thought\n" + answer if opened else answer
    if not item.think:
        return "<|channel>" not in text and "<channel|>" not in text, text
    found = re.fullmatch(r"<\|channel>thought\n(.+?)\n<channel\|>(.*)", text, re.DOTALL)
    if not found or "<|channel>" in found[1] + found[2] or "<channel|>" in found[2]:
        return False, text.rpartition("<channel|>")[2]
    return True, found[2]


def _right(expected: dict[str, Any], body: str, stop: str) -> bool:
    match expected["skill"]:
        case "howto":
            return f"`{expected['command']}`" in body
        case "recall":
            return whole(expected["value"], body)
        case "tool":
            return body == expected["calls"] and stop == "<|tool_response>"
        case "tool_answer":
            return all(whole(value, body) for value in expected["values"])
        case "json":
            return _same_json(body, expected["json"])
        case _:
            return all(text in body for text in expected["holds"])


def whole(value: str, body: str) -> bool:
    """Return whether the value stands in the body, not as a part of a longer word or number."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", body) is not None


def _same_json(body: str, wanted: Any) -> bool:
    try:
        return _canonical(json.loads(body)) == _canonical(wanted)
    except ValueError:
        return False


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def dialogue(seed: int) -> Dialogue:
    """Return one training conversation before rendering, for tests and for reading."""
    return mix.dialogue(Random(seed))
