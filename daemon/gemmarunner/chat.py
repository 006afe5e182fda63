"""A request -> the token ids of its prompt, in the format of the pair that will answer it.

A conversation is written by the pair's own chat template; what the user typed in it stays text,
whatever it spells (see `shield`). A raw prompt is used as it is, control tokens included, behind
one `<bos>`: without it Gemma writes nonsense, and with two it is little better.
"""

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from tokenizers import Tokenizer

from gemmad.api.errors import BadRequest
from gemmad.wire import Generate
from gemmarunner.conversation import checked_tools, template_messages
from gemmarunner.shield import Shield, unused_mark

MAX_TEMPLATE_BYTES = 256 * 1024
_TURN_CLOSE = "<turn|>"


class Renderer(Protocol):
    """Runs a template within limits of time and memory."""

    def render_all(
        self, template: str, prompts: Sequence[Mapping[str, object]]
    ) -> Generator[str | BadRequest, None, None]: ...


class Format(NamedTuple):
    """What a pair's files say about its prompts."""

    template: str | None
    bos: str
    eos: str


class Prompt(NamedTuple):
    """What the engine reads, and the text of it, which says where the answer begins."""

    tokens: list[int]
    text: str


class _Conversation(NamedTuple):
    """What the template gets, and the mark that stands in its strings."""

    variables: dict[str, object]
    mark: str


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
        (prompt,) = self.write_all([request])
        if isinstance(prompt, Exception):
            raise prompt
        return prompt

    def write_all(self, requests: Sequence[Generate]) -> Iterator[Prompt | Exception]:
        """Each request's prompt in order, or what `write` would raise; none waits for a later."""
        covered = [self._covered(request) for request in requests]
        wanted = [one.variables for one in covered if isinstance(one, _Conversation)]
        texts = self._renderer.render_all(self._format.template or "", wanted)
        with contextlib.closing(texts):
            for request, one in zip(requests, covered, strict=True):
                yield self._written(request, one, texts)

    def _covered(self, request: Generate) -> _Conversation | Exception | None:
        """What is to be rendered; None for a raw prompt."""
        if request.prompt is not None:
            return None
        try:
            return self._conversation(request)
        except Exception as error:  # one odd request must not cost the others theirs
            return error

    def _written(
        self,
        request: Generate,
        covered: _Conversation | Exception | None,
        texts: Iterator[str | BadRequest],
    ) -> Prompt | Exception:
        try:
            match covered:
                case None:
                    return self._raw(request.context, request.prompt or "")
                case _Conversation():
                    return self._rendered(request.context, next(texts), covered.mark)
                case error:
                    return error
        except Exception as error:  # as above
            return error

    def _conversation(self, request: Generate) -> _Conversation:
        messages = template_messages(request.messages)
        tools = checked_tools(request.tools)
        self._require_template()
        mark = unused_mark([messages, tools])
        variables = {
            "messages": self._shield.cover(messages, mark),
            "tools": self._shield.cover(tools, mark) if tools else None,
            "enable_thinking": request.think,
            "add_generation_prompt": True,
            "bos_token": self._format.bos,
            "eos_token": self._format.eos,
        }
        return _Conversation(variables, mark)

    def _raw(self, context: Sequence[int], text: str) -> Prompt:
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        return self._behind(context, Prompt(tokens, text), is_turn=False)

    def _rendered(
        self, context: Sequence[int], text: str | BadRequest, mark: str
    ) -> Prompt | BadRequest:
        if isinstance(text, BadRequest):
            return text
        prompt = Prompt(self._shield.encode(text, mark), text)
        return self._behind(context, prompt, is_turn=True)

    def _require_template(self) -> None:
        template = self._format.template
        if template is None:
            raise BadRequest(
                "This model has no chat template, so it cannot hold a conversation.",
                fix="Send a raw prompt, or pull an instruction-tuned model (-it).",
            )
        if len(template.encode()) > MAX_TEMPLATE_BYTES:
            raise BadRequest(f"This model's chat template is over {MAX_TEMPLATE_BYTES} bytes.")

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
