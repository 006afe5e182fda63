"""Token ids -> text, one at a time, such that the pieces add up to the text of all of them.

Half a character is never given. In a tokenizer with byte fallback one wrong byte spoils its whole
run of byte tokens (each becomes U+FFFD), so a run is held until an ordinary token ends it.
"""

import json
import re
from collections.abc import Set
from typing import Any

from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_REPLACEMENT = "\ufffd"  # what a decoder puts for an incomplete character


class Vocabulary:
    """A tokenizer's texts; of control tokens only `hidden_ids` (end, padding) do not show."""

    def __init__(self, tokenizer: Tokenizer, hidden_ids: Set[int] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._hidden_ids = hidden_ids
        self._has_fixed_texts = _decodes_apart(tokenizer)
        self._texts: dict[int, str | None] = {}  # looked up so far; ids without a text aside

    def shows(self, id: int) -> bool:
        """Whether it is a token, and not a hidden one."""
        return self._tokenizer.id_to_token(id) is not None and id not in self._hidden_ids

    def is_byte(self, id: int) -> bool:
        """Whether a token that shows stands for one byte of a character."""
        return _BYTE_TOKEN.fullmatch(self._tokenizer.id_to_token(id) or "") is not None

    def text(self, id: int) -> str | None:
        """What a token always adds to whole characters before it; None where that depends."""
        if id in self._texts:
            return self._texts[id]
        if not self._has_fixed_texts or not self.shows(id):
            return None
        text = None if self.is_byte(id) else self.decode([id])
        self._texts[id] = None if text and text.endswith(_REPLACEMENT) else text
        return self._texts[id]

    def decode(self, ids: list[int]) -> str:
        """The text of all of them."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False)) if ids else ""


class Detokenizer:
    """The text of one answer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._ids: list[int] = []  # given ones, kept as context, then those that are held
        self._given = 0

    def push(self, id: int) -> str:
        """The text that `id` made certain."""
        if self._given == len(self._ids) and (text := self._vocabulary.text(id)) is not None:
            self._ids, self._given = [id], 1
            return text
        if not self._vocabulary.shows(id):
            return ""
        self._ids.append(id)
        return "" if self._vocabulary.is_byte(id) else self._give(whole_characters=True)

    def close(self) -> str:
        """The text that was held; there are no more ids."""
        return self._give(whole_characters=False)

    def _give(self, *, whole_characters: bool) -> str:
        """Text of the held ids, decoded behind those before: a first token may lose its space."""
        text = self._vocabulary.decode(self._ids)
        if whole_characters and text.endswith(_REPLACEMENT):
            return ""
        new = text[len(self._vocabulary.decode(self._ids[: self._given])) :]
        del self._ids[: self._given]
        self._given = len(self._ids)
        return new


def _decodes_apart(tokenizer: Tokenizer) -> bool:
    """Whether a token's text never depends on its neighbours, those that are bytes aside.

    So it is with Gemma's decoder. Others take off a first space, or join words.
    """
    if tokenizer.decoder is None:
        return False
    told: dict[str, Any] = json.loads(tokenizer.decoder.__getstate__())
    return all(map(_keeps_apart, told.get("decoders", [told])))


def _keeps_apart(decoder: dict[str, Any]) -> bool:
    if decoder["type"] == "Replace":
        pattern: dict[str, str] = decoder["pattern"]
        return len(pattern.get("String", "")) == 1  # a longer one might lie across two tokens
    return decoder["type"] in ("ByteFallback", "Fuse")
