"""The text between `<|tool_call>` and `<tool_call|>` -> a call with typed arguments.

    call:NAME{path:<|"|>a b<|"|>,n:3,deep:{flag:true},list:[1,null]}

Keys are bare and may hold `-` and `.`; strings stand between two `<|"|>` and escape nothing. A call
that does not follow this is repaired, in the order of `_repairs`, as Ollama's parser does.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from gemmad.wire import ToolCall

QUOTE = '<|"|>'
MAX_DEPTH = 64  # of nested objects and arrays; a deeper call is no call

_HEAD = re.compile(r"\s*(?:call:)?\s*([^\s{}\[\]<>\"',]+)\s*(?=\{)")
_BARE_KEY = re.compile(r"[^\s:,{}\[\]\"'<>]+")
_BARE_WORD = re.compile(r"[^,{}\[\]\"<>]+")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?=\s*(?:[,}\]]|$))")
_SPACE = re.compile(r"\s*")
_SINGLE_QUOTED = re.compile(r"(?<=[:,\[])(\s*)'([^']*)'(?=\s*[,}\]])")
_WORDS: Mapping[str, object] = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
}
_JSON = json.JSONDecoder(strict=False)


class UnreadableCall(ValueError):
    """The text is not a call, and no repair makes it one."""


def read_call(source: str, tools: Sequence[Mapping[str, object]] = ()) -> ToolCall:
    """The call that `source` writes.

    Raises:
        UnreadableCall: neither as it stands nor repaired.
    """
    head = _HEAD.match(source)
    if head is None:
        raise UnreadableCall(source)
    name, body = head.group(1), source[head.end() :].rstrip()
    for text, bare_words in _repairs(body, _string_keys(name, tools)):
        try:
            return ToolCall(name=name, arguments=_Reader(text, bare_words).whole())
        except (ValueError, IndexError):
            continue
    raise UnreadableCall(source)


def _repairs(body: str, string_keys: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The body as it stands, then ever more guessed; the flag allows unquoted strings.

    1 as it is  2 'x' for a string  3 a missing delimiter before the last brackets
    4 missing closing brackets  5 unquoted words  6 the schema's last string, unquoted to the end
    """
    yield body, False  # 1
    body = _SINGLE_QUOTED.sub(rf"\g<1>{QUOTE}\g<2>{QUOTE}", body)
    yield body, False  # 2
    if body.count(QUOTE) % 2:
        end = len(body.rstrip("}] \n"))
        body = body[:end] + QUOTE + body[end:]
        yield body, False  # 3
    body += _missing_closers(body)
    yield body, False  # 4
    yield body, True  # 5
    for text in _raw_last_string(body, string_keys):  # 6
        yield text, False
        yield text, True


def _missing_closers(body: str) -> str:
    """The brackets that are open at the end of `body`, outside of strings."""
    closers: list[str] = []
    for outside in body.split(QUOTE)[::2]:
        for mark in outside:
            if mark in "{[":
                closers.append("}" if mark == "{" else "]")
            elif mark in "}]" and closers:
                closers.pop()
    return "".join(reversed(closers))


def _raw_last_string(body: str, string_keys: Sequence[str]) -> Iterator[str]:
    """`body` with the value of the last property that is a string by its schema delimited."""
    places = [
        match.end()
        for key in string_keys
        for match in re.finditer(rf"(?:^\{{|,)\s*{re.escape(key)}\s*:", body)
    ]
    if places and body.endswith("}"):
        value = body[max(places) : -1].replace(QUOTE, "").strip()
        yield f"{body[: max(places)]}{QUOTE}{value}{QUOTE}}}"


def _string_keys(name: str, tools: Sequence[Mapping[str, object]]) -> list[str]:
    """The properties of tool `name` that its schema declares as strings."""
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping) and function.get("name") == name:
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
            if isinstance(properties, Mapping):
                return [str(key) for key, schema in properties.items() if _is_string(schema)]
    return []


def _is_string(schema: object) -> bool:
    return isinstance(schema, Mapping) and str(schema.get("type")).lower() == "string"


class _Reader:
    """Recursive descent over one body; every method leaves `_at` behind what it read."""

    def __init__(self, text: str, bare_words: bool) -> None:
        self._text = text
        self._bare_words = bare_words
        self._at = 0
        self._depth = 0

    def whole(self) -> dict[str, object]:
        """The object that is all of the text.

        Raises:
            ValueError: it is not one.
        """
        value = self._object()
        self._skip_space()
        if self._at != len(self._text):
            raise ValueError("text after the object")
        return value

    def _value(self) -> object:
        self._skip_space()
        rest = self._text[self._at : self._at + len(QUOTE)]
        if rest == QUOTE:
            return self._delimited()
        if rest.startswith('"'):
            return self._json_string()
        if rest.startswith("{"):
            return self._object()
        if rest.startswith("["):
            return self._array()
        return self._number_or_word()

    def _object(self) -> dict[str, object]:
        found: dict[str, object] = {}
        self._open("{")
        while not self._accept("}"):
            if found:
                self._expect(",")
            key = self._key()
            self._expect(":")
            found[key] = self._value()
        self._depth -= 1
        return found

    def _array(self) -> list[object]:
        found: list[object] = []
        self._open("[")
        while not self._accept("]"):
            if found:
                self._expect(",")
            found.append(self._value())
        self._depth -= 1
        return found

    def _key(self) -> str:
        self._skip_space()
        if self._text.startswith(QUOTE, self._at):
            return self._delimited()
        if self._text.startswith('"', self._at):
            return self._json_string()
        return self._match(_BARE_KEY)

    def _delimited(self) -> str:
        begin = self._at + len(QUOTE)
        end = self._text.index(QUOTE, begin)
        self._at = end + len(QUOTE)
        return self._text[begin:end]

    def _json_string(self) -> str:
        value, self._at = _JSON.raw_decode(self._text, self._at)
        # \ud800 alone is JSON but no text: it could not be sent on
        return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _number_or_word(self) -> object:
        if number := _NUMBER.match(self._text, self._at):
            self._at = number.end()
            return _finite(number.group())
        word = self._match(_BARE_WORD).strip()
        if word in _WORDS:
            return _WORDS[word]
        if not (self._bare_words and word):
            raise ValueError(f"{word!r} is no value")
        return word

    def _open(self, mark: str) -> None:
        self._expect(mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError("nested too deeply")

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            raise ValueError(f"no {mark!r} at {self._at}")

    def _accept(self, mark: str) -> bool:
        self._skip_space()
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"nothing to read at {self._at}")
        self._at = found.end()
        return found.group()

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        assert space is not None  # the pattern matches nothing, too
        self._at = space.end()


def _finite(digits: str) -> int | float:
    """The number; an integer stays one.

    Raises:
        ValueError: too large to be one.
    """
    if not any(mark in digits for mark in ".eE"):
        return int(digits)
    if not math.isfinite(value := float(digits)):
        raise ValueError("out of range")
    return value
