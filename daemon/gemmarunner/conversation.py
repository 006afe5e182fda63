"""Messages as the wire has them -> messages as a Gemma 4 chat template reads them."""

from collections.abc import Iterable, Sequence

from gemmad.api.errors import BadRequest
from gemmad.wire import Message, ToolCall

ROLES = ("system", "developer", "user", "assistant", "tool")
_CHANNEL_OPEN = "<|channel>"
_CHANNEL_CLOSE = "<channel|>"

TemplateMessage = dict[str, object]


def template_messages(messages: Sequence[Message]) -> list[TemplateMessage]:
    """What the template gets; every tool message names the call it answers.

    Raises:
        BadRequest: no message, or a role that the format does not know.
    """
    if not messages:
        raise BadRequest("messages is empty.", fix="Send at least one message.")
    calls = _Calls()
    return [_template_message(message, calls) for message in messages]


def checked_tools(tools: Sequence[dict[str, object]]) -> Sequence[dict[str, object]]:
    """`tools`, whose members are known to be functions with a name.

    Raises:
        BadRequest: one is not.
    """
    for position, tool in enumerate(tools):
        function = tool.get("function")
        if not (isinstance(function, dict) and isinstance(function.get("name"), str)):
            raise BadRequest(
                f"tools[{position}] has no function with a name.",
                fix='Write {"type": "function", "function": {"name": ..., "parameters": ...}}.',
            )
    return tools


def without_thoughts(text: str) -> str:
    """An assistant's text without `<|channel>...<channel|>`, as the template itself strips it.

    It is done here because the template sees the text only after its tags are defused.
    """
    return "".join(part.split(_CHANNEL_OPEN)[0] for part in text.split(_CHANNEL_CLOSE)).strip()


class _Calls:
    """Calls that wait for their answer, in order; gives those an id that came without one."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, str]] = []  # id, tool's name
        self._count = 0

    def made(self, calls: Iterable[ToolCall]) -> list[TemplateMessage]:
        """The calls of one message, which wait from here on."""
        return [self._made(call) for call in calls]

    def _made(self, call: ToolCall) -> TemplateMessage:
        self._count += 1
        id = call.id or f"call_{self._count}"
        self._waiting.append((id, call.name))
        function = {"name": call.name, "arguments": call.arguments}
        return {"id": id, "type": "function", "function": function}

    def answered_by(self, message: Message) -> str | None:
        """The id of the call that a tool message answers: as it says, by name, else the oldest."""
        for id, name in self._waiting:
            if message.tool_call_id in (None, id) and message.tool_name in (None, name):
                self._waiting.remove((id, name))
                return id
        return message.tool_call_id


def _template_message(message: Message, calls: _Calls) -> TemplateMessage:
    if message.role not in ROLES:
        raise BadRequest(
            f"A message has the role {message.role!r}.", fix=f"Use one of {', '.join(ROLES)}."
        )
    entry: TemplateMessage = {"role": message.role, "content": message.content}
    if message.role == "assistant":
        entry["content"] = without_thoughts(message.content)
        if message.thinking:
            entry["reasoning"] = message.thinking
        if message.tool_calls:
            entry["tool_calls"] = calls.made(message.tool_calls)
    elif message.role == "tool":
        entry["tool_call_id"] = calls.answered_by(message)
        if message.tool_name:
            entry["name"] = message.tool_name
    return entry
