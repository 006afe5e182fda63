"""Bodies of Ollama's requests, and what they mean; pure.

`think`: unset means off, as in Gemma's own template. (Ollama turns it on for every model that can
think; its clients that want thoughts say so, and an answer without them comes sooner.)
"""

from typing import Any

import msgspec

from gemmad.api.errors import BadRequest
from gemmad.core import ModelName
from gemmad.dialects.ollama.options import read_options
from gemmad.dialects.request import GenerationRequest
from gemmad.duration import ACCEPTED, parse_duration
from gemmad.wire import Message, ToolCall

ROLES = ("system", "developer", "user", "assistant", "tool")
THINK_LEVELS = ("low", "medium", "high", "max")


class _Function(msgspec.Struct):
    name: str
    arguments: dict[str, Any] = {}


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _ToolFunction(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    function: _ToolFunction
    type: str = "function"


class _Body(msgspec.Struct, kw_only=True):
    """What generate and chat share."""

    model: str = ""
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    keep_alive: int | float | str | None = None
    options: dict[str, Any] | None = None
    draft: str | int | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class GenerateBody(_Body, kw_only=True):
    """POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[Any] | None = None


class ChatBody(_Body, kw_only=True):
    """POST /api/chat."""

    messages: list[_Message] | None = None
    tools: list[dict[str, Any]] | None = None


class NameBody(msgspec.Struct, kw_only=True):
    """POST /api/show, DELETE /api/delete; what all bodies that name a model share."""

    model: str = ""
    name: str = ""
    stream: bool | None = None
    verbose: bool | None = None

    @property
    def called(self) -> str:
        """The name, whichever field it came in."""
        return self.model or self.name


class CopyBody(msgspec.Struct):
    """POST /api/copy."""

    source: str = ""
    destination: str = ""


def model_name(text: str, field: str = "model") -> ModelName:
    """The model a request names.

    Raises:
        BadRequest: it is missing or not a name.
    """
    if not text:
        raise BadRequest(
            f"The field '{field}' is missing.", fix=f'Send {{"{field}": "nano", ...}}.'
        )
    return ModelName.parse(text)


def generate_request(body: GenerateBody) -> GenerationRequest:
    """What a generate body asks for.

    Raises:
        BadRequest: a field is wrong or not supported; the message names it.
    """
    _refuse_unsupported(body, images=body.images)
    _refuse("suffix", body.suffix)
    _refuse("template", body.template)
    if body.raw and (body.system or body.context):
        raise BadRequest("'raw' does not go with 'system' or 'context'.", fix="Leave one out.")
    prompt = body.prompt or ""
    context = tuple(body.context or ())
    if not all(0 <= token < 1 << 31 for token in context):
        raise BadRequest(
            "'context' holds a number that is no token.", fix="Send back what an answer gave."
        )
    raw = bool(body.raw and prompt)
    return _request(
        body,
        messages=_prompt_messages(body.system, prompt) if prompt and not raw else (),
        prompt=prompt if raw else None,
        context=context,
    )


def chat_request(body: ChatBody) -> GenerationRequest:
    """What a chat body asks for.

    Raises:
        BadRequest: a field is wrong or not supported; the message names it.
    """
    _refuse_unsupported(body)
    messages = tuple(_message(n, message) for n, message in enumerate(body.messages or ()))
    tools = tuple(_tool(n, tool) for n, tool in enumerate(body.tools or ()))
    return _request(body, messages=messages, tools=tools)


def _request(body: _Body, **fields: Any) -> GenerationRequest:
    return GenerationRequest(
        model=model_name(body.model),
        called=body.model,
        think=_think(body.think),
        options=read_options(body.options, body.draft),
        keep_alive_s=_keep_alive(body.keep_alive),
        stream=body.stream is not False,
        **fields,
    )


def _prompt_messages(system: str | None, prompt: str) -> tuple[Message, ...]:
    first = (Message(role="system", content=system),) if system else ()
    return (*first, Message(role="user", content=prompt))


def _message(number: int, message: _Message) -> Message:
    role = message.role.lower()
    if role not in ROLES:
        raise BadRequest(
            f"messages[{number}].role is {message.role[:40]!r}.",
            fix=f"Use one of {', '.join(ROLES)}.",
        )
    _refuse(f"messages[{number}].images", message.images)
    calls = message.tool_calls or ()
    return Message(
        role=role,
        content=message.content or "",
        thinking=message.thinking,
        tool_calls=tuple(
            ToolCall(name=c.function.name, arguments=c.function.arguments, id=c.id) for c in calls
        ),
        tool_name=message.tool_name,
        tool_call_id=message.tool_call_id,
    )


def _tool(number: int, tool: dict[str, Any]) -> dict[str, object]:
    """The tool as it came (the template reads more of it than we check)."""
    try:
        checked = msgspec.convert(tool, _Tool)
    except msgspec.ValidationError as error:
        raise BadRequest(f"tools[{number}] is wrong: {error}.") from error
    if checked.type != "function" or not checked.function.name:
        raise BadRequest(f"tools[{number}] is not a function with a name.")
    return tool


def _think(value: bool | str | None) -> bool:
    if isinstance(value, str) and value not in THINK_LEVELS:
        raise BadRequest(
            f"'think' is {value[:40]!r}.", fix=f"Use true, false, or {', '.join(THINK_LEVELS)}."
        )
    return bool(value)


def _keep_alive(value: int | float | str | None) -> float | None:
    if value is None or value == "":
        return None
    try:
        return parse_duration(value)
    except (ValueError, OverflowError):
        shown = repr(value)[:60]
        raise BadRequest(f"'keep_alive' is {shown}.", fix=f"Use {ACCEPTED}.") from None


def _refuse_unsupported(body: _Body, images: list[Any] | None = None) -> None:
    _refuse("format", body.format, "Ask for JSON in the prompt.")
    _refuse("images", images)
    _refuse("logprobs", body.logprobs)
    _refuse("top_logprobs", body.top_logprobs)


def _refuse(field: str, value: object, fix: str = "Leave it out.") -> None:
    if value:
        raise BadRequest(f"'{field}' is not supported yet.", fix=fix)
