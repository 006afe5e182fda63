"""A stream of Gemma 4 text -> what the user reads, what the model thought, and the tools it called.

    text <|channel>thought\\n...<channel|> text <|tool_call>call:NAME{...}<tool_call|>...

Pure and incremental: whatever the chunking, the pieces add up to the same. Text that may still turn
out to be part of a tag is held back, and so is the whitespace before it, because whitespace around
a tag belongs to nobody. Nothing is dropped silently: a call that cannot be read is given as text.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple

from gemmad.wire import ToolCall
from gemmarunner.toolcall import UnreadableCall, read_call

CHANNEL_OPEN = "<|channel>"
CHANNEL_CLOSE = "<channel|>"
CALL_OPEN = "<|tool_call>"
CALL_CLOSE = "<tool_call|>"
RESPONSE_OPEN = "<|tool_response>"
THOUGHT = "thought"
_TAG_START = "<"  # of every tag


class Parsed(NamedTuple):
    """What became certain; any of the three may be empty."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class _State(Enum):
    TEXT = auto()
    CHANNEL_NAME = auto()  # after <|channel>: `thought\n` is not part of the thought
    THINKING = auto()
    CALL = auto()
    AFTER_CALL = auto()  # closers and openers that follow a call mean nothing


_TAGS: Mapping[_State, tuple[str, ...]] = {
    _State.TEXT: (CHANNEL_OPEN, CHANNEL_CLOSE, CALL_OPEN),
    _State.THINKING: (CHANNEL_OPEN, CHANNEL_CLOSE, CALL_OPEN),
    _State.CALL: (CALL_CLOSE, CALL_OPEN),
    _State.AFTER_CALL: (CHANNEL_OPEN, CHANNEL_CLOSE, CALL_OPEN, CALL_CLOSE, RESPONSE_OPEN),
}
_AFTER_TAG = {
    CHANNEL_OPEN: _State.CHANNEL_NAME,
    CHANNEL_CLOSE: _State.TEXT,
    CALL_OPEN: _State.CALL,
    CALL_CLOSE: _State.AFTER_CALL,
    RESPONSE_OPEN: _State.AFTER_CALL,
}
_LONGEST_TAIL = max(map(len, _AFTER_TAG)) - 1


class StreamParser:
    """Reads one answer; the schemas of the declared `tools` help to read a damaged call."""

    def __init__(self, tools: Sequence[Mapping[str, object]] = ()) -> None:
        self._tools = tools
        self._state = _State.TEXT
        self._held = ""  # read, but not yet certain
        self._after_tag = False  # whitespace that comes now belongs to the tag before it
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[ToolCall] = []

    def start_inside(self, prompt: str) -> None:
        """The answer continues `prompt`, so a channel that is open at its end is open now."""
        opened = prompt.rfind(CHANNEL_OPEN)
        if opened > prompt.rfind(CHANNEL_CLOSE):
            self.feed(prompt[opened:])  # what it gives is the prompt's, not the answer's
            self._held = self._held if self._held.strip() else ""

    def feed(self, piece: str) -> Parsed:
        """What `piece` made certain."""
        self._held += piece
        while self._advance():
            pass
        return self._take()

    def close(self) -> Parsed:
        """The rest, once no more text comes; a call without its closing tag is read as it is."""
        match self._state:
            case _State.CALL:
                self._end_call(closed=False)
            case _State.CHANNEL_NAME:
                if not THOUGHT.startswith(self._held):
                    self._thinking.append(self._held)
            case _State.THINKING:
                self._thinking.append(self._held.rstrip())
            case _State.TEXT | _State.AFTER_CALL:
                self._text.append(self._unled(self._held))
        self._held = ""
        return self._take()

    def _take(self) -> Parsed:
        parsed = Parsed("".join(self._text), "".join(self._thinking), tuple(self._calls))
        self._text, self._thinking, self._calls = [], [], []
        return parsed

    def _advance(self) -> bool:
        """One decision on the held text; False when more text is needed."""
        if self._state is _State.CHANNEL_NAME:
            return self._read_channel_name()
        if self._state is _State.AFTER_CALL and self._holds_text():
            self._state = _State.TEXT
        at, tag = _first_tag(self._held, _TAGS[self._state])
        if tag:
            self._on_tag(at, tag)
            return True
        if self._state is not _State.CALL:
            self._emit_certain()
        return False

    def _read_channel_name(self) -> bool:
        opening = THOUGHT + "\n"
        if self._held.startswith((opening, THOUGHT + CHANNEL_CLOSE)):
            self._held = self._held[len(THOUGHT) :].removeprefix("\n")
        elif opening.startswith(self._held) or (THOUGHT + CHANNEL_CLOSE).startswith(self._held):
            return False
        self._enter(_State.THINKING)
        return True

    def _on_tag(self, at: int, tag: str) -> None:
        before, self._held = self._held[:at], self._held[at + len(tag) :]
        match self._state:
            case _State.CALL:
                self._held, rest = before, self._held
                self._end_call(closed=tag == CALL_CLOSE)
                self._held = rest
            case _State.THINKING:
                self._thinking.append(self._unled(before.rstrip()))
            case _:
                self._text.append(self._unled(before.rstrip()))
        self._enter(_AFTER_TAG[tag])

    def _enter(self, state: _State) -> None:
        self._state = state
        self._after_tag = True

    def _end_call(self, *, closed: bool) -> None:
        source = self._held
        try:
            self._calls.append(read_call(source, self._tools))
        except UnreadableCall:
            self._text.append(CALL_OPEN + source + (CALL_CLOSE if closed else ""))

    def _emit_certain(self) -> None:
        """Everything but a possible beginning of a tag and the whitespace before it."""
        tail = _longest_tail(self._held, _TAGS[self._state])
        certain = self._held[: len(self._held) - tail].rstrip()
        if not certain:
            return
        self._held = self._held[len(certain) :]
        (self._thinking if self._state is _State.THINKING else self._text).append(
            self._unled(certain)
        )

    def _holds_text(self) -> bool:
        """Whether what is held begins with something that can't become a tag."""
        held = self._held.lstrip()
        tags = _TAGS[self._state]
        return bool(held) and not any(held.startswith(t) or t.startswith(held) for t in tags)

    def _unled(self, text: str) -> str:
        """`text` without leading whitespace when it follows a tag."""
        if not self._after_tag:
            return text
        unled = text.lstrip()
        self._after_tag = not unled
        return unled


def _first_tag(text: str, tags: Sequence[str]) -> tuple[int, str]:
    """Where the first of `tags` begins and which it is; an empty tag when there is none."""
    if _TAG_START not in text:
        return -1, ""
    found = [(at, tag) for tag in tags if (at := text.find(tag)) >= 0]
    return min(found, default=(-1, ""))


def _longest_tail(text: str, tags: Sequence[str]) -> int:
    """Length of the longest end of `text` that a tag begins with."""
    at = text.find(_TAG_START, max(0, len(text) - _LONGEST_TAIL))
    while at >= 0:
        tail = text[at:]
        if any(tag.startswith(tail) for tag in tags):
            return len(tail)
        at = text.find(_TAG_START, at + 1)
    return 0
