"""Keeps what a user typed from becoming control tokens.

A tokenizer turns the letters `<|turn>` into the turn token wherever they stand, so a message could
end its own turn and speak as the system. Here a *mark* (a Unicode noncharacter that occurs in none
of the request's strings) is put inside every control token's spelling before the template sees the
string, and behind every beginning of one at a string's end, so that neither the template nor the
next string can complete it. The rendered prompt is then cut at the marks and its pieces are encoded
one by one: the letters stay, and no piece spells a control token that the template did not write.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from tokenizers import Tokenizer

from gemmad.api.errors import BadRequest

_MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))  # never assigned, meant for use inside a program
_CONTROL_SHAPE = re.compile(r"<\|.+>|<.+\|>", re.DOTALL)


class Shield:
    """The control tokens of one tokenizer, and how to defuse their spellings."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.get_added_tokens_decoder().values()
        controls = {t.content for t in added if t.special or _CONTROL_SHAPE.fullmatch(t.content)}
        self._tokenizer = tokenizer
        self._controls = frozenset(text for text in controls if len(text) > 1)
        self._lengths = sorted({len(text) for text in self._controls})
        self._longest = max(self._lengths, default=0)
        self._first = re.compile("|".join(re.escape(c) for c in {t[0] for t in controls}) or "(?!)")
        self._beginnings = frozenset(t[:n] for t in self._controls for n in range(1, len(t)))

    def cover(self, value: object, mark: str) -> object:
        """`value` (any JSON) with `mark` in every string of it that needs it, keys too."""
        if isinstance(value, str):
            return self._cover_text(value, mark)
        if isinstance(value, Mapping):
            return {self._cover_text(k, mark): self.cover(item, mark) for k, item in value.items()}
        if isinstance(value, Sequence):
            return [self.cover(item, mark) for item in value]
        return value

    def encode(self, prompt: str, mark: str) -> list[int]:
        """Token ids of a rendered prompt; the tokenizer adds none of its own."""
        ids: list[int] = []
        for piece in prompt.split(mark):
            ids += self._tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    def _cover_text(self, text: str, mark: str) -> str:
        cuts = [m.start() + 1 for m in self._first.finditer(text) if self._is_control_at(text, m)]
        seen = text.rstrip()  # templates trim: what stands before the space may come to the end
        if any(seen[-size:] in self._beginnings for size in range(1, self._longest)):
            cuts.append(len(seen))
        edges = [0, *cuts, len(text)]
        return mark.join(text[a:b] for a, b in itertools.pairwise(edges))

    def _is_control_at(self, text: str, found: re.Match[str]) -> bool:
        at = found.start()
        return any(text[at : at + length] in self._controls for length in self._lengths)


def unused_mark(value: object) -> str:
    """A mark that no string in `value` holds.

    Raises:
        BadRequest: the strings hold them all.
    """
    used = {mark for text in _strings(value) for mark in _MARKS if mark in text}
    for mark in _MARKS:
        if mark not in used:
            return mark
    raise BadRequest("The messages hold every Unicode noncharacter from U+FDD0 to U+FDEF.")


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)
