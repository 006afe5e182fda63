"""The lines of a Modelfile as instructions, and values as it writes them; pure.

A line is an instruction, a comment after `#`, or blank. `WORD value` in any case; PARAMETER and
MESSAGE have a name before the value. A value is the rest of the line without the blanks around it;
one that begins with `"` or `\"\"\"` goes on, over lines, to the first line that ends with the same
quotes, and has no escapes. All of this is Ollama's. One word is ours, for texts which that grammar
cannot hold, because a line of theirs ends with the quotes:

    CONTINUE value    the value goes on exactly where the instruction before left it
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gemmad.api.errors import BadRequest

WORDS = (
    *("FROM", "DRAFT", "ADAPTER", "PARAMETER", "SYSTEM", "TEMPLATE", "MESSAGE", "LICENSE"),
    *("RENDERER", "PARSER", "REQUIRES", "CONTINUE"),
)
NAMED = ("PARAMETER", "MESSAGE")
ROLES = ("system", "user", "assistant")
FENCE = '"""'

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_FIRST = re.compile(r"\s*(\S*)\s*")
_CLOSES_EARLY = re.compile(r'(?<=""")(?=\s*[\r\n])')


class ModelfileError(BadRequest):
    """A Modelfile that cannot be read; the message names the line."""

    def __init__(self, message: str, *, line: int | None = None, fix: str | None = None) -> None:
        where = "The Modelfile" if line is None else f"Line {line} of the Modelfile"
        super().__init__(f"{where} {message}", fix=fix)
        self.line = line


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; `name` is the parameter's or the role, and empty for the other words."""

    line: int
    word: str
    name: str
    value: str


def instructions(text: str) -> list[Instruction]:
    """The instructions in the order of their lines, values unquoted and put together.

    Raises:
        ModelfileError: a line is no instruction, or a quoted value does not end.
    """
    found: list[Instruction] = []
    for instruction in _read(_LINE.findall(text)):
        if instruction.word != "CONTINUE":
            found.append(instruction)
        elif found:
            found[-1] = replace(found[-1], value=found[-1].value + instruction.value)
        else:
            raise ModelfileError("continues nothing.", line=instruction.line)
    return found


def written(value: str) -> str:
    """The value as it stands after its word, with CONTINUE lines where it needs them."""
    plain = value and value == value.strip() and not value.startswith('"')
    if plain and "\n" not in value and "\r" not in value:
        return value
    return "\nCONTINUE ".join(f"{FENCE}{part}{FENCE}" for part in _CLOSES_EARLY.split(value))


def _read(lines: list[str]) -> Iterator[Instruction]:
    index = 0
    while index < len(lines):
        number, raw = index + 1, lines[index]
        index += 1
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        word, rest = _split(raw)
        word = _known(word, number)
        name, rest = _split(rest) if word in NAMED else ("", rest)
        if not rest:
            raise ModelfileError(f"has no value after {word} {name}".rstrip() + ".", line=number)
        value, index = _value(rest, lines, index)
        yield Instruction(number, word, name.lower(), value)


def _split(text: str) -> tuple[str, str]:
    """The first word, and what stands behind it and its blanks."""
    found = _FIRST.match(text)
    assert found is not None  # every part of the pattern may be empty
    return found[1], text[found.end() :]


def _known(word: str, number: int) -> str:
    if word.upper() in WORDS:
        return word.upper()
    close = difflib.get_close_matches(word[:40].upper(), WORDS, n=1, cutoff=0.5)
    fix = f"Did you mean {close[0]}?" if close else f"Use one of: {', '.join(WORDS[:-1])}."
    raise ModelfileError(
        f"begins with {word[:40]!r}, which is no instruction.", line=number, fix=fix
    )


def _value(first: str, lines: list[str], index: int) -> tuple[str, int]:
    """The value that begins with `first`, and the index of the line after it."""
    if not first.startswith('"'):
        return first.strip(), index
    fence = FENCE if first.startswith(FENCE) else '"'
    begun, chars, line = index, 0, first
    parts: list[str] = []
    while True:
        tail = line.rstrip()
        if tail.endswith(fence) and chars + len(tail) >= 2 * len(fence):
            return "".join([*parts, tail])[len(fence) : -len(fence)], index
        parts.append(line)
        chars += len(line)
        if index == len(lines):
            raise ModelfileError(f"opens a text with {fence} that nothing closes.", line=begun)
        line, index = lines[index], index + 1
