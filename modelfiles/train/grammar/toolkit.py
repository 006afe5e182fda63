"""What all tool skills share: declarations, requests with their calls, results and answers."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from train.grammar import values
from train.grammar.frames import Draw, words

RESPONSE_KEYS = words("tools", "responses")
STATES = ("ok", "done", "ready", "sent", "open", "saved", "started", "booked", "waiting", "failed")

Tool = dict[str, Any]
Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """A user's request, the tools that can serve it and the calls that do."""

    user: str
    tools: list[Tool]
    calls: list[Call]
    wish: str


def declared(name: str, description: str, properties: dict[str, Any], required: list[str]) -> Tool:
    """Return a tool as clients declare it."""
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def message(calls: list[Call]) -> dict[str, Any]:
    """Return the assistant message that makes the calls."""
    made = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in calls]
    return {"role": "assistant", "content": "", "tool_calls": made}


def thought(request: Request) -> str:
    """Return the thought before the calls: which tool, and the values to copy."""
    name, arguments = request.calls[0]
    if not arguments:
        return f"The user wants to {request.wish}. I call {name} without arguments."
    pairs = ", ".join(f"{key} {_plain(value)}" for key, value in sorted(arguments.items()))
    more = f" I call it {len(request.calls)} times." if len(request.calls) > 1 else ""
    return f"The user wants to {request.wish}. I call {name} with {pairs}.{more}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


class Result(NamedTuple):
    """What a tool gave back, and the message content it arrives in."""

    value: Any
    content: Any


def result(draw: Draw) -> Result:
    """Return what a tool may give back: a text, a number, a list, a mapping, or JSON text."""
    value = _value(draw)
    if isinstance(value, str) or draw.chance(0.4):
        return Result(value, value)
    return Result(value, json.dumps(value, ensure_ascii=False))  # as most clients send it


def _value(draw: Draw) -> Any:
    roll = draw.random()
    if roll < 0.2:
        return values.free(draw, values.phrase)
    if roll < 0.33:
        return values.typed_value(draw, "integer" if draw.chance(0.6) else "number")
    if roll < 0.39:
        return [values.free(draw, values.anything) for _ in range(2 + draw.below(2))]
    if roll < 0.44:
        return {"error": values.free(draw, values.phrase)}
    return {key: _entry(draw) for key in draw.sample(RESPONSE_KEYS, 1 + draw.below(3))}


def _entry(draw: Draw) -> Any:
    roll = draw.random()
    if roll < 0.2:
        return draw.choose(STATES)
    if roll < 0.5:
        return values.typed_value(draw, "integer" if draw.chance(0.7) else "number")
    return values.free(draw, values.phrase)


def answer(results: list[Result]) -> str:
    """Return the sentences that report the results of the calls, keys in the order they came."""
    return " ".join(map(_report, results))


def _report(result: Result) -> str:
    value, content = result
    if not isinstance(value, dict):
        return f"The result is {_plain(value)}."
    if "error" in value:
        return f"That did not work: {value['error']}."
    # A mapping is rendered sorted, JSON text is not; the report follows what the model reads.
    pairs = value.items() if isinstance(content, str) else sorted(value.items())
    parts = [f"the {key} is {_plain(item)}" for key, item in pairs]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return text[:1].upper() + text[1:] + "."


def facts(results: list[Result]) -> list[str]:
    """Return every value that a right answer repeats."""
    found: list[str] = []
    for value, _ in results:
        leaves = list(value.values()) if isinstance(value, dict) else value
        found += map(_plain, leaves if isinstance(leaves, list) else [leaves])
    return found
