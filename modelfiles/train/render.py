"""Renders a dialogue to Gemma 4's exact text, with a loss weight for every piece of it.

It writes what `nano/target/chat_template.jinja` writes (a test compares the two) for the
dialogues of the grammar: text messages, calls with mappings as arguments, one tool message a call.

    <bos>[<|turn>system\n[<|think|>\n]TEXT{<|tool>declaration:...<tool|>}*<turn|>\n]
    <|turn>user\nTEXT<turn|>\n
    <|turn>model\n[<|channel>thought\n...\n<channel|>]TEXT<turn|>\n
"""

from collections.abc import Mapping, Sequence
from typing import Any

from train.conversation import (
    MODEL_WEIGHT,
    PROMPT_WEIGHT,
    Conversation,
    Dialogue,
    Segment,
)

QUOTE = '<|"|>'
Message = Mapping[str, Any]


def argument(value: Any, quote_keys: bool = True) -> str:
    """Return `value` as it stands inside a call, a response or a declaration."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"{QUOTE}{value}{QUOTE}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        mark = QUOTE if quote_keys else ""
        pairs = (f"{mark}{key}{mark}:{argument(item, quote_keys)}" for key, item in _by_key(value))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(argument(item, quote_keys) for item in value) + "]"
    return str(value)


def _by_key(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(mapping.items(), key=lambda pair: pair[0].lower())


def call(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the text of one tool call."""
    return f"<|tool_call>call:{name}{{{_pairs(arguments)}}}<tool_call|>"


def response(name: str, value: Any) -> str:
    """Return the text of one tool response, without its opening token."""
    body = _pairs(value) if isinstance(value, Mapping) else f"value:{argument(value, False)}"
    return f"response:{name}{{{body}}}<tool_response|>"


def _pairs(mapping: Mapping[str, Any]) -> str:
    return ",".join(f"{key}:{argument(value, False)}" for key, value in _by_key(mapping))


def declaration(tool: Mapping[str, Any]) -> str:
    """Return the declaration of a tool whose parameters are flat (no nested objects)."""
    function = tool["function"]
    head = f"<|tool>declaration:{function['name']}{{description:{argument(function['description'])}"
    parameters = function["parameters"]
    properties = ",".join(
        f"{key}:{_property(value)}" for key, value in _by_key(parameters["properties"])
    )
    inside = f"properties:{{{properties}}}," if properties else ""
    if parameters.get("required"):
        inside += "required:" + argument(parameters["required"]) + ","
    return f"{head},parameters:{{{inside}type:{QUOTE}{parameters['type'].upper()}{QUOTE}}}}}<tool|>"


def _property(value: Mapping[str, Any]) -> str:
    parts = []
    if value.get("description"):
        parts.append("description:" + argument(value["description"]))
    if value.get("enum"):
        parts.append("enum:" + argument(value["enum"]))
    if value.get("items"):
        parts.append(f"items:{{type:{argument(value['items']['type'].upper())}}}")
    parts.append("type:" + argument(value["type"].upper()))
    return "{" + ",".join(parts) + "}"


def render(dialogue: Dialogue) -> Conversation:
    """Return the dialogue's text from `<bos>` to its last token, weighted for training.

    In a thinking dialogue the turns before the last user message weigh nothing: their thoughts are
    stripped, so learning from them would teach the model to skip its own.
    """
    messages = dialogue.messages
    segments = [Segment("<bos>" + _system(dialogue), PROMPT_WEIGHT)]
    last_user = max(i for i, message in enumerate(messages) if message["role"] == "user")
    for index, message in enumerate(messages):
        match message["role"]:
            case "user":
                text = f"<|turn>user\n{message['content']}<turn|>\n<|turn>model\n"
                segments.append(Segment(text, PROMPT_WEIGHT))
            case "assistant":
                fresh = index > last_user
                weight = MODEL_WEIGHT if fresh or not dialogue.think else 0.0
                segments += _model_turn(messages, index, weight, fresh)
            case _:
                pass
    return Conversation(tuple(segments))


def prompt(dialogue: Dialogue) -> str:
    """Return the text a model continues: the dialogue up to the start of the next model turn."""
    text = render(dialogue).text
    if dialogue.think and dialogue.messages[-1]["role"] == "tool":
        return text + "<|channel>thought\n"
    return text


def _system(dialogue: Dialogue) -> str:
    first = dialogue.messages[0]
    has_text = first["role"] == "system"
    if not (has_text or dialogue.tools or dialogue.think):
        return ""
    think = "<|think|>\n" if dialogue.think else ""
    tools = "".join(map(declaration, dialogue.tools))
    return f"<|turn>system\n{think}{first['content'] if has_text else ''}{tools}<turn|>\n"


def _model_turn(
    messages: Sequence[Message], index: int, weight: float, fresh: bool
) -> list[Segment]:
    message = messages[index]
    thought, written = message.get("reasoning"), ""
    segments = []
    if thought and fresh:
        if messages[index - 1]["role"] == "tool":  # the prompt opens this thought, not the model
            segments.append(Segment("<|channel>thought\n", PROMPT_WEIGHT))
        else:
            written = "<|channel>thought\n"
        written += f"{thought}\n<channel|>"
    calls = message.get("tool_calls")
    if not calls:
        written += message["content"] + "<turn|>"
        return [*segments, Segment(written, weight), Segment("\n", PROMPT_WEIGHT)]
    written += "".join(call(c["function"]["name"], c["function"]["arguments"]) for c in calls)
    segments.append(Segment(written + "<|tool_response>", weight))
    if index + 1 < len(messages):
        segments.append(Segment(_responses(messages, index, len(calls)), PROMPT_WEIGHT))
    return segments


def _responses(messages: Sequence[Message], index: int, count: int) -> str:
    following = messages[index + 1 : index + 1 + count]
    return "<|tool_response>".join(response(m["name"], m["content"]) for m in following)
