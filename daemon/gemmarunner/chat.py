"""A request -> the token ids of its prompt, in the format of the pair that will answer it.

A conversation is written by the pair's own chat template; what the user typed in it stays text,
whatever it spells (see `shield`). A raw prompt is used as it is, control tokens included, behind
one `<bos>`: without it Gemma writes nonsense, and with two it is little better.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tokenizers import Tokenizer

from gemmad.api.errors import BadRequest
from gemmad.wire import Generate
from gemmarunner.conversation import checked_tools, template_messages
from gemmarunner.shield import Shield, unused_mark

MAX_TEMPLATE_BYTES = 256 * 1024
_TURN_CLOSE = "<turn|>"


class Renderer(Protocol):
    """Runs a template within limits of time and memory; raises BadRequest."""

    def render(self, template: str, variables: dict[str, object]) -> str: ...


class Format(NamedTuple):
    """What a pair's files say about its prompts."""

    template: str | None
    bos: str
    eos: str


class Prompt(NamedTuple):
    """What the engine reads, and the text of it, which says where the answer begins."""

    tokens: list[int]
    text: str


class PromptWriter:
    """Writes the prompts of one pair."""

    def __init__(self, tokenizer: Tokenizer, format: Format, renderer: Renderer) -> None:
        self._tokenizer = tokenizer
        self._format = format
        self._renderer = renderer
        self._shield = Shield(tokenizer)
        self._bos_id = tokenizer.token_to_id(format.bos)

    def write(self, request: Generate) -> Prompt:
        """The prompt of `request`, behind its context.

        Raises:
            BadRequest: nothing to answer, a bad message or tool, no template or a failing one.
        """
        if request.prompt is not None:
            return self._behind(request.context, self._raw(request.prompt), is_turn=False)
        return self._behind(request.context, self._conversation(request), is_turn=True)

    def _raw(self, text: str) -> Prompt:
        return Prompt(self._tokenizer.encode(text, add_special_tokens=False).ids, text)

    def _conversation(self, request: Generate) -> Prompt:
        messages = template_messages(request.messages)
        tools = checked_tools(request.tools)
        mark = unused_mark([messages, tools])
        text = self._renderer.render(
            self._template(),
            {
                "messages": self._shield.cover(messages, mark),
                "tools": self._shield.cover(tools, mark) if tools else None,
                "enable_thinking": request.think,
                "add_generation_prompt": True,
                "bos_token": self._format.bos,
                "eos_token": self._format.eos,
            },
        )
        return Prompt(self._shield.encode(text, mark), text)

    def _template(self) -> str:
        template = self._format.template
        if template is None:
            raise BadRequest(
                "This model has no chat template, so it cannot hold a conversation.",
                fix="Send a raw prompt, or pull an instruction-tuned model (-it).",
            )
        if len(template.encode()) > MAX_TEMPLATE_BYTES:
            raise BadRequest(f"This model's chat template is over {MAX_TEMPLATE_BYTES} bytes.")
        return template

    def _behind(self, context: Sequence[int], prompt: Prompt, *, is_turn: bool) -> Prompt:
        """`prompt` after `context`, with one `<bos>` in front; a new turn closes the last."""
        tokens = prompt.tokens
        while tokens and tokens[0] == self._bos_id:
            tokens = tokens[1:]
        if not context:
            begin = [] if self._bos_id is None else [self._bos_id]
            return prompt._replace(tokens=begin + tokens)
        close = self._close_turn(context) if is_turn else []
        return prompt._replace(tokens=[*context, *close, *tokens])

    def _close_turn(self, context: Sequence[int]) -> list[int]:
        """What `context` lacks to the end of its last turn: an answer's ids end before its stop."""
        close = self._tokenizer.token_to_id(_TURN_CLOSE)
        if close is None or close in context[-2:]:
            return []
        return self._tokenizer.encode(_TURN_CLOSE + "\n", add_special_tokens=False).ids
